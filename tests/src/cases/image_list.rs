//! `docker images`: filters, sizes, and what clients of older API versions are told.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cases;
use crate::fixtures;
use crate::subject::Subject;

cases![
    images_are_chosen_by_when_they_were_made,
    images_are_chosen_by_their_names,
    dangling_images_have_no_tag,
    what_images_share_is_told,
    older_clients_are_told_in_older_words,
];

/// The tar of a root with one file of so many bytes.
fn root(name: &str, bytes: usize) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, &vec![b'x'; bytes][..])?;
    Ok(archive.into_inner()?)
}

fn import(on: &dyn Subject, label: &str, name: &str) -> Result<String> {
    let change = format!("LABEL listed={label}");
    on.docker().feed(["import", "--change", &change, "-", name], &fixtures::root_archive()?)?.ok()
}

/// The ids of what is listed by these filters, sorted.
fn listed(on: &dyn Subject, filters: &Value) -> Result<Vec<String>> {
    let filters = filters.to_string().replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
    let answer = on.api().get(&format!("/images/json?filters={filters}"))?;
    ensure!(answer.status == 200, "{}", answer.json()?);
    let told = answer.json()?;
    let ids = told.as_array().context("no list")?.iter().filter_map(|image| image["Id"].as_str());
    let mut ids: Vec<String> = ids.map(str::to_owned).collect();
    ids.sort();
    Ok(ids)
}

fn sorted(ids: &[&String]) -> Vec<String> {
    let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
    ids.sort();
    ids
}

fn images_are_chosen_by_when_they_were_made(on: &dyn Subject) -> Result<()> {
    let names = ["when/a:1", "when/b:1", "when/c:1"];
    let ids: Vec<String> = names.iter().map(|name| import(on, "when", name)).collect::<Result<_>>()?;
    let of = |filters: Value| {
        let mut all = json!({"label": ["listed=when"]});
        if let (Some(all), Some(more)) = (all.as_object_mut(), filters.as_object()) {
            all.extend(more.clone());
        }
        listed(on, &all)
    };
    ensure!(of(json!({}))? == sorted(&[&ids[0], &ids[1], &ids[2]]));
    ensure!(of(json!({"before": ["when/c:1"]}))? == sorted(&[&ids[0], &ids[1]]));
    ensure!(of(json!({"before": ["when/c:1", "when/b:1"]}))? == sorted(&[&ids[0]]));
    ensure!(of(json!({"since": ["when/a:1"]}))? == sorted(&[&ids[1], &ids[2]]));
    ensure!(of(json!({"since": [ids[0]], "before": [ids[2]]}))? == sorted(&[&ids[1]]));
    ensure!(of(json!({"until": ["24h"]}))?.is_empty());
    ensure!(of(json!({"until": ["2100-01-01"]}))?.len() == 3);
    let filters = "%7B%22before%22%3A%5B%22no-such-image%22%5D%7D";
    let answer = on.api().get(&format!("/images/json?filters={filters}"))?;
    ensure!(answer.status == 404, "{}", answer.status);
    ensure!(answer.json()?["message"] == "No such image: no-such-image:latest", "{}", answer.json()?);
    on.docker().ok(["rmi"].iter().chain(&names))?;
    Ok(())
}

fn images_are_chosen_by_their_names(on: &dyn Subject) -> Result<()> {
    let id = import(on, "names", "names/one:v1")?;
    on.docker().ok(["tag", "names/one:v1", "names/two:v2"])?;
    let tags = |pattern: &str| -> Result<Value> {
        let pattern = pattern.replace('[', "%5B").replace(']', "%5D").replace('^', "%5E");
        let filters = format!("%7B%22reference%22%3A%5B%22{pattern}%22%5D%7D");
        let told = on.api().get(&format!("/images/json?filters={filters}"))?.json()?;
        ensure!(
            told.as_array().is_some_and(|list| list.iter().all(|image| image["Id"] == id.as_str())),
            "{told}"
        );
        Ok(told[0]["RepoTags"].clone())
    };
    ensure!(tags("names/one")? == json!(["names/one:v1"]));
    ensure!(tags("names/*")? == json!(["names/one:v1", "names/two:v2"]));
    ensure!(tags("names/*:v2")? == json!(["names/two:v2"]));
    ensure!(tags("names/[a-o]??:v?")? == json!(["names/one:v1"]));
    ensure!(tags("names/[^o]*")? == json!(["names/two:v2"]));
    ensure!(tags("one")? == Value::Null && tags("names/one:v2")? == Value::Null);
    let answer = on.api().get("/images/json?filters=%7B%22reference%22%3A%5B%22%5B%22%5D%7D")?;
    ensure!(
        answer.status == 500 && answer.json()?["message"] == "syntax error in pattern",
        "{}",
        answer.json()?
    );
    on.docker().ok(["rmi", "names/one:v1", "names/two:v2"])?;
    Ok(())
}

fn dangling_images_have_no_tag(on: &dyn Subject) -> Result<()> {
    let without = import(on, "dangling", "dangling/it:1")?;
    let with = import(on, "dangling", "dangling/it:1")?;
    for (words, id) in [(["true"], &without), (["1"], &without), (["false"], &with), (["0"], &with)] {
        let found = listed(on, &json!({"label": ["listed=dangling"], "dangling": words}))?;
        ensure!(found == sorted(&[id]), "{words:?}: {found:?}");
    }
    let answer = on.api().get("/images/json?filters=%7B%22dangling%22%3A%5B%22TRUE%22%5D%7D")?;
    ensure!(
        answer.status == 400 && answer.json()?["message"] == "invalid filter 'dangling=[TRUE]'",
        "{}",
        answer.json()?
    );
    on.docker().ok(["rmi", &without, &with])?;
    Ok(())
}

fn what_images_share_is_told(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let change = "LABEL listed=shared";
    docker.feed(["import", "--change", change, "-", "shared/base:1"], &root("shared-base", 1000)?)?.ok()?;
    docker.ok(["create", "--name", "shared-grows", "shared/base:1", "/none"])?;
    docker.feed(["cp", "-", "shared-grows:/"], &root("shared-more", 10)?)?.ok()?;
    docker.ok(["commit", "shared-grows", "shared/child:1"])?;
    docker.ok(["rm", "shared-grows"])?;
    let filters = "filters=%7B%22label%22%3A%5B%22listed%3Dshared%22%5D%7D";
    let sizes = |query: &str| -> Result<Vec<(i64, i64)>> {
        let told = on.api().get(&format!("/images/json?{filters}{query}"))?.json()?;
        let of = |image: &Value| {
            (image["Size"].as_i64().unwrap_or(-2), image["SharedSize"].as_i64().unwrap_or(-2))
        };
        let mut sizes: Vec<_> = told.as_array().context("no list")?.iter().map(of).collect();
        sizes.sort_unstable();
        Ok(sizes)
    };
    ensure!(sizes("&shared-size=1")? == [(1000, 1000), (1010, 1000)], "{:?}", sizes("&shared-size=1")?);
    ensure!(sizes("")? == [(1000, -1), (1010, -1)], "{:?}", sizes("")?);
    let df = on.api().get("/system/df?type=image")?.json()?;
    let images = df["Images"].as_array().context("no images")?;
    let of = |tag: &str| images.iter().find(|image| image["RepoTags"] == json!([tag])).cloned();
    let child = of("shared/child:1").context("the child is missing")?;
    ensure!(child["SharedSize"] == 1000 && child["Size"] == 1010 && child["Containers"] == 0, "{child}");
    docker.ok(["rmi", "shared/child:1", "shared/base:1"])?;
    Ok(())
}

fn older_clients_are_told_in_older_words(on: &dyn Subject) -> Result<()> {
    let without = import(on, "older", "older/it:1")?;
    let with = import(on, "older", "older/it:1")?;
    let filters = "filters=%7B%22label%22%3A%5B%22listed%3Dolder%22%5D%7D";
    let told = |version: &str, id: &str| -> Result<Value> {
        let told = on.api().get(&format!("/{version}/images/json?{filters}"))?.json()?;
        let image = told.as_array().and_then(|list| list.iter().find(|image| image["Id"] == id)).cloned();
        image.context("it is not listed")
    };
    for (version, has_virtual_size, none, containers) in [
        ("v1.42", true, true, -1),
        ("v1.43", true, false, -1),
        ("v1.50", false, false, -1),
        ("v1.51", false, false, 0),
    ] {
        let image = told(version, &without)?;
        ensure!(image.get("VirtualSize").is_some() == has_virtual_size, "{version}: {image}");
        let tags = if none { json!(["<none>:<none>"]) } else { json!([]) };
        ensure!(image["RepoTags"] == tags && image["Containers"] == containers, "{version}: {image}");
    }
    ensure!(told("v1.42", &with)?["RepoTags"] == json!(["older/it:1"]));
    let named = on.api().get("/v1.40/images/json?filter=older/*")?.json()?;
    ensure!(named.as_array().map(Vec::len) == Some(1) && named[0]["Id"] == with.as_str(), "{named}");
    for (version, has) in [("v1.43", true), ("v1.44", false)] {
        let image = on.api().get(&format!("/{version}/images/{with}/json"))?.json()?;
        ensure!(image.get("VirtualSize").is_some() == has, "{version}: {image}");
    }
    on.docker().ok(["rmi", &without, &with])?;
    Ok(())
}

//! Names, asked from inside sandboxes.

use std::net::UdpSocket;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;
use crate::{CreateRequest, Link};

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let mut query = Query::new();
    query.name = Name::from_utf8(format!("{name}.")).unwrap();
    query.query_type = kind;
    message.add_query(query);
    message.to_vec().unwrap()
}

/// What a container is answered over UDP.
fn ask(sandbox: &Sandbox, name: &str, kind: RecordType) -> Message {
    let bytes = question(name, kind);
    let answer = inside(sandbox, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect("127.0.0.11:53")?;
        socket.send(&bytes)?;
        let mut buffer = vec![0; 65_535];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    });
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, Message::from_vec(&bytes).unwrap().metadata.id);
    answer
}

fn ask_over_tcp(sandbox: &Sandbox, name: &str, kind: RecordType) -> Message {
    let bytes = question(name, kind);
    let answer = inside(sandbox, || {
        let mut stream = connect("127.0.0.11:53".parse().unwrap())?;
        stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes())?;
        stream.write_all(&bytes)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    });
    Message::from_vec(&answer).unwrap()
}

/// The data of an answer, sorted.
fn data(answer: &Message) -> Vec<String> {
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    let mut data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    data.sort();
    data
}

fn named(network: &str, container: &str, names: &[&str], links: &[(&str, &str)]) -> AttachRequest {
    let join = Join {
        network: network.into(),
        dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
        links: links.iter().map(|(c, a)| Link { container: (*c).into(), alias: (*a).into() }).collect(),
        ..Join::default()
    };
    AttachRequest { networks: vec![join], ..request(container, vec![]) }
}

fn dual(name: &str) -> CreateRequest {
    CreateRequest { name: name.into(), enable_ipv6: Some(true), ..CreateRequest::default() }
}

#[test]
fn containers_find_each_other_by_name_on_their_own_networks_only() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.create(dual("front")).await.unwrap();
        networks.create(dual("back")).await.unwrap();
        let web = networks.attach(named("front", "web", &["web", "www", "0123456789ab"], &[])).await.unwrap();
        let db = networks.attach(named("back", "db", &["db"], &[])).await.unwrap();
        let app = networks.attach(named("front", "app", &["app"], &[("web", "linked")])).await.unwrap();
        let ipv4 = [address(&web).to_string()];
        for name in ["web", "WEB", "www", "0123456789ab", "linked", "web.front"] {
            assert_eq!(data(&ask(&app, name, RecordType::A)), ipv4, "{name}");
        }
        assert_eq!(data(&ask_over_tcp(&app, "web", RecordType::A)), ipv4);
        let ipv6 = web.endpoints[0].link.as_ref().unwrap().ipv6.unwrap().address;
        assert_eq!(data(&ask(&app, "web", RecordType::AAAA)), [ipv6.to_string()]);
        for other in ["db", "linked"] {
            // Nobody else can be asked either.
            let answer = ask(if other == "db" { &app } else { &web }, other, RecordType::A);
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "{other}");
        }
        let reverse = ask(&app, "2.0.18.172.in-addr.arpa", RecordType::PTR);
        assert_eq!(data(&reverse), ["web.front."]);

        let joined = networks
            .connect("db", Join { network: "front".into(), dns_names: vec!["db".into()], ..Join::default() });
        joined.await.unwrap();
        assert_eq!(data(&ask(&app, "db", RecordType::A)).len(), 1, "from the moment on when it is connected");
        assert_eq!(data(&ask(&db, "web", RecordType::A)), ipv4);
        networks.rename("web", "site", &|_| Some(vec!["site".into()])).await.unwrap();
        assert_eq!(data(&ask(&app, "site", RecordType::A)).len(), 1);
        assert_eq!(ask(&app, "web", RecordType::A).metadata.response_code, ResponseCode::ServFail);
        networks.detach("web").await.unwrap();
        assert_eq!(ask(&app, "site", RecordType::A).metadata.response_code, ResponseCode::ServFail);
    });
}

#[test]
fn replicas_share_an_alias_in_turn() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.create(CreateRequest { name: "n".into(), ..CreateRequest::default() }).await.unwrap();
        for replica in ["a", "b", "c"] {
            networks.attach(named("n", replica, &[replica, "service"], &[])).await.unwrap();
        }
        let client = networks.attach(named("n", "client", &["client"], &[])).await.unwrap();
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let answer = ask(&client, "service", RecordType::A);
            firsts.insert(answer.answers[0].data.to_string());
            assert_eq!(data(&answer), ["172.18.0.2", "172.18.0.3", "172.18.0.4"]);
        }
        assert_eq!(firsts.len(), 3, "each is first at times");
        assert!(
            data(&ask(&client, "service", RecordType::AAAA)).is_empty(),
            "known, but without such addresses"
        );
    });
}

/// A name server of this system that knows one name, and counts.
fn name_server(at: &str) -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
    let socket = UdpSocket::bind(at).unwrap();
    let asked = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let count = asked.clone();
    // It ends with the test's process.
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let query = question.queries[0].clone();
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.add_query(query.clone());
            match query.name.to_utf8().as_str() {
                "outside.example." => {
                    let data = RData::A(A([192, 0, 2, 7].into()));
                    answer.add_answer(Record::from_rdata(query.name, 60, data));
                }
                "long.example." => {
                    let text = RData::TXT(TXT::new(vec!["x".repeat(200); 4]));
                    answer.add_answer(Record::from_rdata(query.name, 0, text));
                }
                _ => answer.metadata.response_code = ResponseCode::NXDomain,
            }
            socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
        }
    });
    asked
}

#[test]
fn what_we_do_not_know_is_asked_of_others_and_remembered() {
    in_own_system(async |home| {
        let asked = name_server("127.0.0.1:53");
        let count = || asked.load(std::sync::atomic::Ordering::SeqCst);
        let options =
            Options { name_servers: vec!["127.0.0.1".parse().unwrap()], ..Options::new(Publisher::Native) };
        let networks = Networks::open(&home.root(), &home.exec_root(), options).await.unwrap();
        networks.create(CreateRequest { name: "n".into(), ..CreateRequest::default() }).await.unwrap();
        let inner = CreateRequest { name: "inner".into(), internal: true, ..CreateRequest::default() };
        networks.create(inner).await.unwrap();
        let client = networks.attach(named("n", "client", &["client"], &[])).await.unwrap();
        for _ in 0..3 {
            assert_eq!(data(&ask(&client, "outside.example", RecordType::A)), ["192.0.2.7"]);
        }
        assert_eq!(count(), 1, "the second time it is remembered");
        let unknown = ask(&client, "unknown.example", RecordType::A);
        assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
        let long = ask(&client, "long.example", RecordType::TXT);
        assert!(long.metadata.truncation, "too long for a client that says nothing of it");
        let shut_in = networks.attach(named("inner", "shut-in", &["shut-in"], &[])).await.unwrap();
        let before = count();
        let refused = ask(&shut_in, "outside.example", RecordType::A);
        assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(count(), before, "no way out leads from an internal network");
    });
}

#[test]
fn a_container_s_own_name_servers_are_asked_from_inside() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.create(CreateRequest { name: "n".into(), ..CreateRequest::default() }).await.unwrap();
        let server = networks.attach(named("n", "server", &["server"], &[])).await.unwrap();
        let asked = inside(&server, || Ok(name_server("0.0.0.0:53")));
        let client =
            AttachRequest { name_servers: vec![address(&server)], ..named("n", "client", &["client"], &[]) };
        let client = networks.attach(client).await.unwrap();
        assert_eq!(data(&ask(&client, "outside.example", RecordType::A)), ["192.0.2.7"]);
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
        // Port 53 of a container is its own, also while it is answered at 127.0.0.11.
        drop(inside(&client, || UdpSocket::bind("0.0.0.0:53")));
    });
}

#[test]
fn names_are_answered_again_after_the_engine_was_killed() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.create(CreateRequest { name: "n".into(), ..CreateRequest::default() }).await.unwrap();
        networks.attach(named("n", "web", &["web"], &[])).await.unwrap();
        let client = networks.attach(named("n", "client", &["client"], &[])).await.unwrap();
        drop(networks);
        let again = home.open().await;
        let restored = again.restore(&["web".to_owned(), "client".to_owned()]).await;
        assert!(restored.iter().all(|one| one.lost.is_empty() && one.sandbox.resolver));
        assert_eq!(data(&ask(&client, "web", RecordType::A)), ["172.18.0.2"]);
    });
}

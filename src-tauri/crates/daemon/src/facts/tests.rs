use super::*;
use std::sync::Mutex;

#[test]
fn a_proxy_on_loopback_is_this_computer_s_to_the_guest() {
    for (here, there) in [
        ("http://127.0.0.1:3128", "http://host.docker.internal:3128"),
        ("http://u:p@localhost:3128/", "http://u:p@host.docker.internal:3128/"),
        ("http://[::1]:1", "http://host.docker.internal:1"),
        ("socks5://127.8.0.1", "socks5://host.docker.internal"),
        ("http://u:p%40x@proxy.lan:1", "http://u:p%40x@proxy.lan:1"),
        ("http://localhost.lan:1", "http://localhost.lan:1"),
        ("http://[2001:db8::1]:1", "http://[2001:db8::1]:1"),
        ("localhost:1", "http://host.docker.internal:1"),
    ] {
        assert_eq!(for_guest(here), there);
    }
}

#[test]
fn certificates_are_told_once_and_no_more_than_fit() {
    let (text, told) = pem(&[vec![0; 60], vec![1; 3], vec![0; 60]]);
    assert_eq!(told, 3);
    assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(text.contains("\nAQEB\n") && text.lines().all(|line| line.len() <= 64), "{text}");
    let many: Vec<Vec<u8>> = (0..200u8).map(|n| vec![n; 8 << 10]).collect();
    let (text, told) = pem(&many);
    assert!(told > 0 && told < many.len(), "{told}");
    assert!(text.len() <= MAX_AUTHORITIES && text.len() > MAX_AUTHORITIES - (12 << 10), "{}", text.len());
    assert!(text.ends_with("-----END CERTIFICATE-----\n"));
}

/// A computer that changes as the test likes. Who locks its second part has it not tell its proxies yet.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<(Seen, usize)>>, Arc<Mutex<()>>);

impl Fake {
    fn set(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.lock().unwrap().0);
    }

    fn looks_at_all(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

impl Sources for Fake {
    fn routes(&self) -> io::Result<Vec<Route>> {
        let seen = self.0.lock().unwrap().0.clone();
        seen.problems.routes.map_or(Ok(seen.routes), |problem| Err(io::Error::other(problem)))
    }

    fn proxies(&self) -> io::Result<Proxies> {
        drop(self.1.lock().unwrap());
        let mut all = self.0.lock().unwrap();
        all.1 += 1;
        let seen = all.0.clone();
        seen.problems
            .proxies
            .map_or(Ok(seen.proxies.unwrap_or_default()), |problem| Err(io::Error::other(problem)))
    }

    fn authorities(&self) -> Authorities {
        self.0.lock().unwrap().0.authorities.clone()
    }

    fn registry_settings(&self) -> Result<RegistrySettings, RegistrySettingsError> {
        let seen = self.0.lock().unwrap().0.clone();
        match seen.registries.problem {
            Some(problem) => {
                Err(RegistrySettingsError::File("daemon.json".into(), io::Error::other(problem)))
            }
            None => Ok(seen.registries.settings),
        }
    }

    fn registry_certificates(&self) -> RegistryCertificates {
        self.0.lock().unwrap().0.registries.certificates.clone()
    }
}

fn status(state: MachineState) -> MachineStatus {
    MachineStatus {
        state,
        stages: Vec::new(),
        failure: None,
        engine: caisson_machine::EngineStatus::Off,
        hypervisor: "fake",
        acceleration: None,
        notices: Vec::new(),
        paused: None,
        guest: None,
        disk_full: None,
        boot_ms: None,
    }
}

fn has_proxy(name: &'static str) -> impl Fn(&Vec<HostFact>) -> bool {
    move |facts| {
        facts.iter().any(|fact| {
            matches!(fact, HostFact::Proxies(proxies) if proxies.http.as_deref().unwrap_or_default() == name)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_is_told_soon_while_a_machine_runs_and_before_the_next_one() {
    let fake = Fake::default();
    let proxy = |url: &str| Some(url.to_owned());
    fake.set(|seen| seen.proxies.get_or_insert_default().http = proxy("http://one"));
    let (facts, mut told) = watch::channel(Vec::new());
    let (machine, status_of) = watch::channel(status(MachineState::Stopped));
    let keeping = tokio::spawn(keep(fake.clone(), false, facts, status_of));
    told.wait_for(has_proxy("http://one")).await.unwrap();
    assert_eq!(told.borrow_and_update().len(), 5);

    // Off: nobody looks.
    tokio::time::sleep(ALL_EVERY * 10).await;
    assert_eq!(fake.looks_at_all(), 1);

    machine.send_replace(status(MachineState::Running));
    fake.set(|seen| seen.proxies.get_or_insert_default().http = proxy("http://two"));
    let before = Instant::now();
    told.wait_for(has_proxy("http://two")).await.unwrap();
    assert!(before.elapsed() <= ALL_EVERY);

    // Another network.
    fake.set(|seen| {
        seen.proxies.get_or_insert_default().http = proxy("http://three");
        seen.routes = vec![Route { address: "10.0.0.0".parse().unwrap(), prefix: 8 }];
    });
    let before = Instant::now();
    told.wait_for(has_proxy("http://three")).await.unwrap();
    assert!(before.elapsed() <= OFTEN);

    // The user's files.
    let insecure = |facts: &Vec<HostFact>| {
        facts.iter().any(|fact| matches!(fact, HostFact::Registries(told) if told.insecure == ["r.lan"]))
    };
    fake.set(|seen| seen.registries.settings.insecure = vec!["r.lan".into()]);
    let before = Instant::now();
    told.wait_for(insecure).await.unwrap();
    assert!(before.elapsed() <= OFTEN);

    machine.send_replace(status(MachineState::Stopped));
    tokio::time::sleep(ALL_EVERY * 2).await;
    fake.set(|seen| seen.proxies.get_or_insert_default().http = proxy("http://four"));
    let before = Instant::now();
    machine.send_replace(status(MachineState::Preparing));
    told.wait_for(has_proxy("http://four")).await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);

    // Nothing new is nothing to tell.
    told.mark_unchanged();
    tokio::time::sleep(ALL_EVERY * 3).await;
    assert!(!told.has_changed().unwrap());
    drop(machine);
    keeping.await.unwrap();
}

fn network() -> Vec<Route> {
    vec![Route { address: "10.0.0.0".parse().unwrap(), prefix: 8 }]
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "a blocking thread is to hang on it")]
async fn nothing_waits_for_proxies() {
    let fake = Fake::default();
    fake.set(|seen| {
        seen.routes = network();
        seen.proxies.get_or_insert_default().http = Some("http://one".into());
    });
    let (facts, mut told) = watch::channel(Vec::new());
    let (_machine, status_of) = watch::channel(status(MachineState::Stopped));
    let hangs = fake.1.lock().unwrap();
    let keeping = tokio::spawn(keep(fake.clone(), false, facts, status_of));
    let first = told.wait_for(|facts| !facts.is_empty()).await.unwrap().clone();
    assert!(
        matches!(&first[..], [HostFact::Routes { routes }, HostFact::Authorities { .. }, _, _] if routes.len() == 1)
    );
    drop(hangs);
    told.wait_for(has_proxy("http://one")).await.unwrap();
    keeping.abort();
}

#[test]
fn what_is_not_told_stays_as_it_was_and_is_said_once() {
    let fake = Fake::default();
    let script = |seen: &mut Seen| seen.proxies.get_or_insert_default().script = Some("http://wpad".into());
    fake.set(|seen| {
        seen.routes = network();
        seen.registries.settings.mirrors.push("https://m".into());
        script(seen);
    });
    let look = |seen: &Seen| look_at_proxies(&fake, look_at_all_but_proxies(&fake, seen.clone()));
    let first = look(&Seen::default());
    let [pac] = &news(&Seen::default(), &first)[..] else { panic!("the script is what is new") };
    assert!(pac.contains("PAC, http://wpad") && pac.contains("does not use"), "{pac}");

    fake.set(|seen| {
        seen.problems = Problems { routes: Some("r".into()), proxies: Some("p".into()) };
        seen.registries.problem = Some("b".into());
    });
    let second = look(&first);
    assert_eq!((&second.routes, &second.proxies), (&first.routes, &first.proxies));
    assert_eq!(second.registries.settings, first.registries.settings);
    let said = news(&first, &second);
    assert!(said.len() == 3 && said[0].contains("routes") && said[1].contains("proxies"), "{said:?}");
    assert_eq!(said[2], "the settings of registries stay as they were: cannot read daemon.json: b");
    let third = look(&second);
    assert_eq!((news(&second, &third), third == second), (Vec::new(), true));

    fake.set(|seen| {
        seen.problems = Problems::default();
        seen.registries.problem = None;
    });
    let fourth = look(&third);
    assert_eq!((news(&third, &fourth), &fourth), (Vec::new(), &first));
    fake.set(|seen| seen.problems.routes = Some("again".into()));
    assert_eq!(news(&fourth, &look(&fourth)).len(), 1);
}

#[test]
fn authorities_that_are_not_told_are_said_once() {
    let with = |certificates: Vec<Vec<u8>>| {
        let authorities = Authorities { certificates, problems: vec!["no file".into()] };
        Seen { authorities, ..Seen::default() }
    };
    let (few, many) = (with(Vec::new()), with((0..200u8).map(|n| vec![n; 8 << 10]).collect()));
    assert_eq!(
        news(&Seen::default(), &few),
        ["authorities that this computer may trust cannot be read: no file"]
    );
    let said = news(&few, &many);
    assert!(said.len() == 2 && said[1].starts_with("of the 200 authorities"), "{said:?}");
    assert!(news(&many, &many).is_empty());
}

use super::*;
use message::query;

async fn ask(name: &str, kind: u16) -> Vec<u8> {
    Resolver::default().answer(query(1, name, kind)).await.unwrap()
}

#[tokio::test]
async fn this_computer_has_its_names() {
    for name in ["host.docker.internal", "Gateway.Docker.Internal"] {
        assert!(ask(name, kind::A).await.ends_with(&HOST_ADDRESS.octets()), "{name}");
        let v6 = ask(name, kind::AAAA).await;
        assert_eq!((v6[3] & 15, v6[7]), (0, 0), "it exists and has no such address");
    }
    let name = ask("254.0.0.192.in-addr.arpa", kind::PTR).await;
    assert!(name.ends_with(b"\x04host\x06docker\x08internal\0"));
}

#[tokio::test]
async fn the_systems_own_names_are_known() {
    assert!(ask("localhost", kind::A).await.ends_with(&[127, 0, 0, 1]));
    assert_eq!(
        ask("localhost", kind::AAAA).await[3] & 15,
        Code::Fine as u8,
        "whether it has such addresses or not"
    );
    assert_eq!(ask("no-such-name.invalid", kind::A).await[3] & 15, Code::NoSuchName as u8);
}

#[tokio::test]
async fn queries_of_a_stream_are_answered_by_id() {
    let (mut near, far) = tokio::io::duplex(4096);
    let serving = tokio::spawn(async move { Resolver::default().serve(Box::new(far)).await });
    for id in 0..100 {
        write_message(&mut near, &query(id, "host.docker.internal", kind::A)).await.unwrap();
    }
    write_message(&mut near, b"nonsense").await.unwrap();
    let mut answered = std::collections::BTreeSet::new();
    let mut answer = Vec::new();
    while answered.len() < 100 {
        assert!(read_message(&mut near, &mut answer).await.unwrap());
        answered.insert([answer[0], answer[1]]);
    }
    drop(near);
    serving.await.unwrap().unwrap();
}

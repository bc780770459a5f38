use super::*;
use std::net::Ipv4Addr;

/// A client with a connected socket is answered, what it sends comes whole, and from where it is said to come.
async fn is_answered(port: &Datagrams, from: &str, at: SocketAddr) {
    let client = UdpSocket::bind((from, 0)).await.unwrap();
    client.connect(at).await.unwrap();
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    for length in [0, 5, 60_000] {
        client.send(&vec![7; length]).await.unwrap();
        let (received, ends) = port.receive(&mut asked).await.unwrap();
        let expected = Ends { client: client.local_addr().unwrap(), asked: Some(at.ip()) };
        assert_eq!((&asked[..received], ends), (&vec![7; length][..], expected), "{at}");
        port.answer(&asked[..received], ends).await.unwrap();
        let received = tokio::time::timeout(LIMIT, client.recv(&mut answered)).await.expect("an answer");
        assert_eq!(answered[..received.unwrap()], asked[..length], "{at}");
    }
}

/// Nothing here waits so long unless it is broken.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

async fn port(ip: &str) -> (Datagrams, u16) {
    let socket = UdpSocket::bind((ip, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    (Datagrams::new(socket).unwrap(), port)
}

#[tokio::test]
async fn a_connected_client_is_answered_from_the_address_that_it_asked() {
    let (any, number) = port("0.0.0.0").await;
    // macOS' loopback has one address.
    for at in
        if cfg!(target_os = "macos") { &["127.0.0.1"][..] } else { &["127.0.0.1", "127.0.0.2", "127.9.9.9"] }
    {
        is_answered(&any, "127.0.0.1", SocketAddr::new(at.parse().unwrap(), number)).await;
    }
    let (one, number) = port("127.0.0.1").await;
    is_answered(&one, "127.0.0.1", (Ipv4Addr::LOCALHOST, number).into()).await;
    let (any, number) = port("::").await;
    is_answered(&any, "::1", SocketAddr::new("::1".parse().unwrap(), number)).await;
}

#[tokio::test]
async fn an_address_that_cannot_answer_leaves_the_choice_to_the_system() {
    let (any, number) = port("0.0.0.0").await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for asked in [None, Some("198.51.100.1".parse().unwrap()), Some("255.255.255.255".parse().unwrap())] {
        any.answer(b"here", Ends { client: client.local_addr().unwrap(), asked }).await.unwrap();
        let (length, from) = client.recv_from(&mut [0; 16]).await.unwrap();
        assert_eq!((length, from), (4, (Ipv4Addr::LOCALHOST, number).into()), "{asked:?}");
    }
}

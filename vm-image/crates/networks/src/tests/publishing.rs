//! Ports of this system.

use std::net::{TcpListener, UdpSocket};

use super::*;
use crate::ErrorKind;
use crate::error::chain;

fn local(port: u16) -> [SocketAddr; 2] {
    [SocketAddr::new("127.0.0.1".parse().unwrap(), port), SocketAddr::new("::1".parse().unwrap(), port)]
}

#[test]
fn a_published_port_answers_in_both_families_and_closes_with_the_sandbox() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let web = request("web", vec![publish(None, HostPorts::exactly(8080))]);
        let sandbox = networks.attach(web.clone()).await.unwrap();
        let open: Vec<_> = sandbox.published.iter().map(|p| (p.host_ip.to_string(), p.host_port.0)).collect();
        assert_eq!(open, [("0.0.0.0".to_owned(), 8080), ("::".to_owned(), 8080)]);
        let server = listen_in(&sandbox);
        for at in local(8080) {
            converse(connect(at).unwrap(), &server);
        }
        let mut idle = connect(local(8080)[0]).unwrap();
        let (mut served, _) = server.accept().unwrap();
        idle.write_all(b"x").unwrap();
        served.read_exact(&mut [0]).unwrap();

        networks.detach("web").await.unwrap();
        assert!(matches!(idle.read(&mut [0]), Ok(0) | Err(_)), "the connection ended");
        for at in local(8080) {
            assert_eq!(connect(at).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        }
        networks.attach(web).await.unwrap();
    });
}

#[test]
fn an_ephemeral_port_is_the_same_in_both_families_and_one_address_is_one_port() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let wishes =
            vec![publish(None, HostPorts::Ephemeral), publish(Some("127.0.0.1"), HostPorts::exactly(0))];
        let sandbox = networks.attach(request("web", wishes)).await.unwrap();
        let [v4, v6, one] = &sandbox.published[..] else { panic!("{:?}", sandbox.published) };
        assert_eq!(v4.host_port, v6.host_port);
        assert_ne!(v4.host_port.0, 0);
        assert_eq!(one.host_ip.to_string(), "127.0.0.1");
        let server = listen_in(&sandbox);
        for port in [v4, v6] {
            converse(connect(local(port.host_port.0)[usize::from(port.host_ip.is_ipv6())]).unwrap(), &server);
        }
        converse(connect(local(one.host_port.0)[0]).unwrap(), &server);
        assert!(connect(local(one.host_port.0)[1]).is_err(), "bound to IPv4 only");
    });
}

#[test]
fn a_port_held_by_a_process_fails_the_attach_by_name_and_undoes_everything() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let theirs = TcpListener::bind("127.0.0.1:8080").unwrap();
        let wishes = vec![publish(None, HostPorts::exactly(8081)), publish(None, HostPorts::exactly(8080))];
        let error = networks.attach(request("web", wishes.clone())).await.unwrap_err();
        let text = chain(&error);
        let (start, end) = text.split_once(" (held by ").unwrap();
        assert!(
            start.starts_with("driver failed programming external connectivity on endpoint web ("),
            "{text}"
        );
        assert!(
            start.ends_with(
                "): failed to bind host port for 0.0.0.0:8080:172.17.0.2:80/tcp: address already in use"
            ),
            "{text}"
        );
        assert!(end.ends_with(&format!(" (pid {}))", std::process::id())), "{text}");
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(networks.sandbox("web").is_none());
        assert!(connect(local(8081)[0]).is_err(), "the port that could be bound is closed again");

        drop(theirs);
        let sandbox = networks.attach(request("web", wishes)).await.unwrap();
        assert_eq!(address(&sandbox).to_string(), "172.17.0.2", "the failed attach gave its address back");
        networks.detach("web").await.unwrap();
        networks.close().await;
        assert_eq!((home.namespaces(), devices().len()), (0, 0));
    });
}

#[test]
fn a_port_held_by_a_container_is_refused_in_dockerds_words() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.attach(request("web", vec![publish(None, HostPorts::exactly(8080))])).await.unwrap();
        let wish = publish(Some("127.0.0.1"), HostPorts::exactly(8080));
        let error = networks.attach(request("db", vec![wish])).await.unwrap_err();
        let text = chain(&error);
        assert!(
            text.ends_with("Bind for 0.0.0.0:8080 failed: port is already allocated (held by container web)"),
            "{text}"
        );
        let range = publish(None, HostPorts::FirstFreeOf(8080..=8082));
        let sandbox = networks.attach(request("db", vec![range.clone(), range])).await.unwrap();
        let ports: Vec<u16> = sandbox.published.iter().map(|port| port.host_port.0).collect();
        assert_eq!(ports, [8081, 8081, 8082, 8082]);
    });
}

#[test]
fn an_address_that_is_not_here_is_refused() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let wish = publish(Some("192.0.2.1"), HostPorts::exactly(8080));
        let error = chain(&networks.attach(request("web", vec![wish])).await.unwrap_err());
        assert!(
            error.ends_with("192.0.2.1:8080:172.17.0.2:80/tcp: cannot assign requested address"),
            "{error}"
        );
    });
}

#[test]
fn a_published_udp_port_answers_each_client_with_its_own_answers() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let udp = PortBinding { protocol: PortProtocol::Udp, ..publish(None, HostPorts::exactly(5300)) };
        let sandbox = networks.attach(request("dns", vec![udp.clone()])).await.unwrap();
        let server = inside(&sandbox, || UdpSocket::bind("0.0.0.0:80"));
        server.set_read_timeout(Some(LIMIT)).unwrap();
        let clients =
            [("127.0.0.1:0", "127.0.0.1:5300"), ("127.0.0.1:0", "127.0.0.1:5300"), ("[::1]:0", "[::1]:5300")];
        let clients = clients.map(|(from, to)| {
            let client = UdpSocket::bind(from).unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            client.connect(to).unwrap();
            client
        });
        let mut buffer = [0; 100];
        for round in 0..3u8 {
            for (n, client) in clients.iter().enumerate() {
                client.send(&[round, n as u8]).unwrap();
            }
            for _ in &clients {
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                server.send_to(&buffer[..length], from).unwrap();
            }
            for (n, client) in clients.iter().enumerate() {
                let length = client.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..length], [round, n as u8]);
            }
        }
        // TCP and UDP ports of one number are two ports.
        networks.attach(request("web", vec![publish(None, HostPorts::exactly(5300))])).await.unwrap();
        let taken = chain(&networks.attach(request("other", vec![udp])).await.unwrap_err());
        assert!(taken.contains("Bind for 0.0.0.0:5300 failed: port is already allocated"), "{taken}");
        networks.detach("dns").await.unwrap();
        UdpSocket::bind("0.0.0.0:5300").unwrap();
    });
}

#[test]
fn a_connection_to_a_container_that_does_not_listen_is_refused_or_reset() {
    in_own_system(async |home| {
        let networks = home.open().await;
        networks.attach(request("web", vec![publish(None, HostPorts::exactly(8080))])).await.unwrap();
        let [ipv4, ipv6] = local(8080);
        assert_eq!(connect(ipv4).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        // The reset may come before the client has looked whether it is connected.
        let error = connect(ipv6).and_then(|mut client| client.read(&mut [0])).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn much_data_arrives_whole_both_ways_at_once() {
    const BYTES: usize = 16 << 20;
    fn pattern(seed: usize) -> Vec<u8> {
        (0..BYTES).map(|n| ((n * seed) >> 7) as u8).collect()
    }
    fn exchange(stream: &TcpStream, send: &[u8], expect: &[u8]) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = stream;
                stream.write_all(send).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let (mut stream, mut heard) = (stream, Vec::new());
            stream.read_to_end(&mut heard).unwrap();
            assert!(heard == expect, "{} bytes of {}", heard.len(), expect.len());
        });
    }
    in_own_system(async |home| {
        let networks = home.open().await;
        let sandbox =
            networks.attach(request("web", vec![publish(None, HostPorts::exactly(8080))])).await.unwrap();
        let server = listen_in(&sandbox);
        let (to, back) = (pattern(31), pattern(37));
        std::thread::scope(|scope| {
            scope.spawn(|| exchange(&connect(local(8080)[1]).unwrap(), &to, &back));
            scope.spawn(|| exchange(&server.accept().unwrap().0, &back, &to));
        });
    });
}

#[test]
fn a_reader_that_rests_holds_up_its_writer_and_nobody_else() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let sandbox =
            networks.attach(request("web", vec![publish(None, HostPorts::exactly(8080))])).await.unwrap();
        let server = listen_in(&sandbox);
        let mut client = connect(local(8080)[1]).unwrap();
        let (_served, _) = server.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let chunk = vec![0; 1 << 20];
        // Buffers fill up on the way; each time there is room again, less is left.
        loop {
            match client.write(&chunk) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let mut polled = [rustix::event::PollFd::new(&client, rustix::event::PollFlags::OUT)];
                    let soon = rustix::event::Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
                    if rustix::event::poll(&mut polled, Some(&soon)).unwrap() == 0 {
                        break;
                    }
                }
                Err(error) => panic!("{error}"),
            }
            assert!(sent < 1 << 30, "a gigabyte went nowhere");
        }
        converse(connect(local(8080)[0]).unwrap(), &server);
    });
}

#[test]
fn the_answer_of_a_server_that_takes_no_more_arrives() {
    const ANSWER: usize = 4 << 10;
    in_own_system(async |home| {
        let networks = home.open().await;
        let sandbox =
            networks.attach(request("web", vec![publish(None, HostPorts::exactly(8080))])).await.unwrap();
        let server = listen_in(&sandbox);
        for turn in 0..20 {
            let client = connect(local(8080)[1]).unwrap();
            let (mut served, _) = server.accept().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| while (&client).write_all(&[0; 64 << 10]).is_ok() {});
                served.read_exact(&mut [0; 1]).unwrap();
                served.write_all(&[7; ANSWER]).unwrap();
                // With the rest of the question unread, so the connection is reset behind the answer.
                drop(served);
                let mut heard = vec![0; ANSWER];
                (&client).read_exact(&mut heard).unwrap_or_else(|error| panic!("turn {turn}: {error}"));
                assert!(heard.iter().all(|byte| *byte == 7));
                // The reset is told to whoever asks first, which may be the thread that writes.
                assert_eq!((&client).read(&mut heard).unwrap_or(0), 0);
            });
        }
    });
}

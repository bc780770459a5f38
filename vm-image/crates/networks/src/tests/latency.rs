//! How long things take. Run with `--ignored --nocapture`, in a release build, on a quiet machine.

use std::time::Instant;

use super::*;

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

#[test]
#[ignore = "a measurement"]
fn attach_and_detach() {
    in_own_system(async |home| {
        let networks = home.open().await;
        let (mut attach, mut detach, mut first) = (Vec::new(), Vec::new(), None);
        for n in 0..100 {
            let (container, start) = (format!("c{n}"), Instant::now());
            networks.attach(request(&container, vec![])).await.unwrap();
            let attached = start.elapsed();
            first.get_or_insert(attached);
            attach.push(attached);
            let start = Instant::now();
            networks.detach(&container).await.unwrap();
            detach.push(start.elapsed());
        }
        let worst = attach.iter().max().copied().unwrap();
        let start = Instant::now();
        networks.close().await;
        println!(
            "attach {:?} (first {first:?}, worst {worst:?}), detach {:?}, close {:?}",
            median(attach),
            median(detach),
            start.elapsed()
        );
    });
}

#[test]
#[ignore = "a measurement"]
fn through_a_published_port() {
    const BYTES: usize = 1 << 30;
    const ROUNDS: u32 = 5000;
    /// Bytes one way until the end, then one byte back and forth.
    fn measure(how: &str, at: SocketAddr, server: &TcpListener) {
        let mut client = connect(at).unwrap();
        let (mut served, _) = server.accept().unwrap();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = vec![0; 1 << 18];
                let mut left = BYTES;
                while left > 0 {
                    left -= served.read(&mut buffer).unwrap();
                }
            });
            let chunk = vec![0; 1 << 18];
            (0..BYTES / chunk.len()).for_each(|_| client.write_all(&chunk).unwrap());
        });
        let rate = BYTES as f64 * 8e-9 / start.elapsed().as_secs_f64();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut byte = [0];
                for _ in 0..ROUNDS {
                    served.read_exact(&mut byte).unwrap();
                    served.write_all(&byte).unwrap();
                }
            });
            let mut byte = [0];
            for _ in 0..ROUNDS {
                client.write_all(&byte).unwrap();
                client.read_exact(&mut byte).unwrap();
            }
        });
        println!("{how}: {rate:.1} Gbit/s, {:?} there and back", start.elapsed() / ROUNDS);
    }
    in_own_system(async |home| {
        let networks = home.open().await;
        let wish = publish(None, HostPorts::exactly(8080));
        let sandbox = networks.attach(request("web", vec![wish])).await.unwrap();
        let server = listen_in(&sandbox);
        measure("to the container", SocketAddr::new(address(&sandbox), 80), &server);
        measure("to its published port", "127.0.0.1:8080".parse().unwrap(), &server);
    });
}

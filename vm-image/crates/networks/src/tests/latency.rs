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

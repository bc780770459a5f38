//! How often a registry that is busy or breaks off is asked again, and how long one waits between.

use std::time::Duration;

use rand::Rng as _;

use super::RegistryError;

/// After how many attempts in a row that brought nothing one gives up, as in dockerd.
const FRUITLESS_MAX: u32 = 5;
/// The pause before the second attempt; it doubles each time.
const FIRST_PAUSE: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(1) };
/// The longest pause that a registry may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is left of it. What brings something restores all of it: a new one.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    fruitless: u32,
}

/// A wait before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    /// What is told of it.
    pub(crate) seconds: u64,
    exactly: Duration,
}

impl Patience {
    /// What to wait after an attempt that brought nothing but this error, and then to try again. Nothing if that is no use,
    /// or was in vain too often.
    pub(crate) fn after(&mut self, error: &RegistryError) -> Option<Pause> {
        self.fruitless += 1;
        if !error.is_passing() || self.fruitless >= FRUITLESS_MAX {
            return None;
        }
        tracing::debug!(%error, fruitless = self.fruitless, "a registry is asked again");
        let asked_for = error.refusal().and_then(|refusal| refusal.retry_after);
        Some(Pause::before(self.fruitless, Duration::from_secs(asked_for.unwrap_or_default())))
    }
}

impl Pause {
    /// Longer each time, never the same for all clients, and at least what the registry asks for.
    fn before(attempt: u32, asked_for: Duration) -> Self {
        let whole = FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(5));
        let asked_for = asked_for.min(LONGEST_PAUSE);
        let jittered = whole.mul_f64(rand::rng().random_range(0.75..1.0));
        Self { seconds: whole.max(asked_for).as_secs(), exactly: jittered.max(asked_for) }
    }

    pub(crate) async fn wait(self) {
        tokio::time::sleep(self.exactly).await;
    }
}

/// Asks for something small until there is an answer, or an error that stays.
pub(crate) async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, RegistryError>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let mut patience = Patience::default();
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match patience.after(&error) {
            Some(pause) => pause.wait().await,
            None => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::registry::error::Refusal;

    fn refused(status: u16, retry_after: Option<u64>) -> RegistryError {
        let (code, message) = ("TOOMANYREQUESTS".to_owned(), String::new());
        RegistryError::Answer(Refusal { code, message, status, retry_after })
    }

    #[test]
    fn a_registry_says_when_to_come_again() {
        let asked_for = Patience::default().after(&refused(429, Some(3))).unwrap();
        assert_eq!((asked_for.seconds, asked_for.exactly), (3, Duration::from_secs(3)));
        let too_long = Patience::default().after(&refused(429, Some(86_400))).unwrap();
        assert_eq!(too_long.exactly, LONGEST_PAUSE);
        assert_eq!(Patience::default().after(&refused(404, Some(3))), None);
    }

    #[tokio::test]
    async fn patience_ends() {
        for (status, attempts) in [(503, FRUITLESS_MAX), (404, 1)] {
            let asked = Cell::new(0);
            let ended = patiently(|| {
                asked.set(asked.get() + 1);
                async { Err::<(), _>(refused(status, None)) }
            });
            assert!(ended.await.is_err());
            assert_eq!(asked.get(), attempts);
        }
        let asked = Cell::new(0);
        let answered = patiently(|| {
            asked.set(asked.get() + 1);
            let answer = if asked.get() < 3 { Err(refused(500, None)) } else { Ok("there") };
            async { answer }
        });
        assert_eq!(answered.await.unwrap(), "there");
    }
}

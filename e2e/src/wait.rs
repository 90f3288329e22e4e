//! Waiting for a condition, with the last thing seen in the error.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Asks until the answer is `Ok`, every 50 ms. An error that comes after `timeout` says what was waited for and what
/// the last answer was; write conditions so that theirs is worth reading ("weight is 20, expected 50").
pub async fn wait_for<T>(what: &str, timeout: Duration, mut condition: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        let error = match tokio::time::timeout(timeout.max(Duration::from_secs(5)), condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("the question itself got no answer"),
        };
        if start.elapsed() >= timeout {
            let waited = start.elapsed().as_secs_f64();
            return Err(error.context(format!("waited {waited:.1} s for {what}; last seen")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn the_error_says_what_was_seen_last() {
        let count = Cell::new(0);
        let result: Result<()> = wait_for("three", Duration::from_millis(120), async || {
            count.set(count.get() + 1);
            anyhow::bail!("only {}", count.get())
        })
        .await;
        let text = format!("{:#}", result.unwrap_err());
        assert!(text.contains("for three") && text.contains(&format!("only {}", count.get())), "{text}");
        assert!(count.get() > 1);
    }

    #[tokio::test]
    async fn the_value_comes_through() {
        let count = Cell::new(0);
        let value = wait_for("two", Duration::from_secs(5), async || {
            count.set(count.get() + 1);
            anyhow::ensure!(count.get() == 2, "not yet");
            Ok(count.get())
        })
        .await;
        assert_eq!(value.unwrap(), 2);
    }
}

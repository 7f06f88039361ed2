//! The task of one source: connect, read, wait, again, until it is stopped.

use std::time::Duration;

use super::{Session, Source};

/// Goes round until the upstream says stop or the source is stopped.
pub(super) async fn run(mut session: Session, mut source: Box<dyn Source>) {
    loop {
        session.connecting();
        let ending = source.run(&mut session).await;
        let next = session.ended(&ending, random_u64());
        let spec = session.spec();
        let delay_ms = next.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        tracing::info!(
            source.name = %spec.name, source.protocol = %spec.protocol, ending = ending.slug, detail = %ending.detail, delay_ms,
            "upstream connection ended"
        );
        session.tell(&ending, next.is_some()).await;
        match next {
            Some(delay) if session.wait(delay).await => {}
            Some(_) => {
                let _: Option<Duration> = session.ended(&super::Ending::cancelled(), 0);
                return;
            }
            None => return,
        }
    }
}

/// Sixteen bytes from the system's generator.
pub(super) fn seed() -> [u8; 16] {
    let mut seed = [0; 16];
    // A machine without a generator still makes ids that rise and delays that are long enough; neither is a secret.
    let _ = getrandom::fill(&mut seed);
    seed
}

/// Sixty-four bits from the system's generator.
pub(super) fn random_u64() -> u64 {
    let whole = u128::from_le_bytes(seed());
    u64::try_from(whole >> 64).unwrap_or(0)
}

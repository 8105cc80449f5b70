//! Whom TLS trusts on the way to a connection manager: the authorities of this machine.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long what was read is good: an authority that is no longer trusted is not for longer.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// The authorities as they were read last; none that could not be read are remembered.
#[derive(Default)]
pub(super) struct Trust(Mutex<Option<(Instant, Arc<ClientConfig>)>>);

impl Trust {
    /// How TLS is spoken; none where this machine trusts nobody, now.
    pub(super) async fn get(&self) -> Option<Arc<ClientConfig>> {
        self.get_or_read(read).await
    }

    async fn get_or_read<R>(&self, read: R) -> Option<Arc<ClientConfig>>
    where
        R: FnOnce() -> Option<Arc<ClientConfig>> + Send + 'static,
    {
        let mut kept = self.0.lock().await;
        if let Some((read_at, config)) = &*kept
            && read_at.elapsed() < KEPT_FOR
        {
            return Some(config.clone());
        }
        // Files, and some 150 certificates to parse.
        let config = tokio::task::spawn_blocking(read).await.ok().flatten();
        *kept = config.clone().map(|config| (Instant::now(), config));
        config
    }
}

fn read() -> Option<Arc<ClientConfig>> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors = found.errors;
        tracing::warn!(
            ?errors,
            "this machine trusts no authority: no TLS can be spoken"
        );
        return None;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Some(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Option<Arc<ClientConfig>> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        Some(Arc::new(config))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_kept_for_a_while_and_what_was_not_is_read_again() {
        let trust = Trust::default();
        assert!(trust.get_or_read(|| None).await.is_none());
        let first = trust.get_or_read(some).await.expect("read again");
        let kept = trust.get_or_read(|| None).await.expect("kept");
        assert!(Arc::ptr_eq(&first, &kept));
        tokio::time::advance(KEPT_FOR).await;
        let next = trust.get_or_read(some).await.expect("read anew");
        assert!(!Arc::ptr_eq(&first, &next));
        tokio::time::advance(KEPT_FOR).await;
        assert!(
            trust.get_or_read(|| None).await.is_none(),
            "trusted no longer"
        );
    }
}

//! TLS without a proxy: certificate and key from two PEM files, read again when they change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, ServerConnection};
use tokio_rustls::server::TlsStream;

use crate::config;

/// How long a TLS handshake may take.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How often the files are looked at, while connections come.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// How much of a file is encrypted at once.
pub const PIECE_BYTES: usize = 64 << 10;
/// What of an answer waits, encrypted, for a client that does not read: a piece, and the head
/// before it, so that they go out at once.
const UNSENT_BYTES_MAX: usize = PIECE_BYTES + (4 << 10);

/// A connection after its handshake. In a box: its keys and buffers are moved about no more.
pub type Secured = Box<TlsStream<TcpStream>>;

/// Why a pair of certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificate's file holds none.
    #[error("{0}: no certificate in it (http.tls.certificate needs the chain in PEM)")]
    NoCertificate(PathBuf),
    /// The key's file holds none.
    #[error("{0}: no private key in it (http.tls.key needs one in PEM, without a passphrase)")]
    NoKey(PathBuf),
    /// The two do not belong together.
    #[error("{key}: this is not the key of {certificate}")]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's.
        certificate: PathBuf,
    },
    /// TLS cannot use them.
    #[error("{path}: {source}")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// The pair in use, and when its files were last looked at.
pub struct Reloader {
    check_every: Duration,
    state: Mutex<State>,
}

struct State {
    files: config::Tls,
    acceptor: TlsAcceptor,
    stamp: Stamp,
    checked_at: Instant,
}

/// A pair that was read and can be used.
pub struct Pair(State);

impl State {
    fn read(files: &config::Tls) -> Result<Self, TlsError> {
        let stamp = stamp(files);
        Ok(Self {
            acceptor: read(files)?,
            files: files.clone(),
            stamp,
            checked_at: Instant::now(),
        })
    }
}

/// What changes when a file is replaced.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Reloader {
    /// Reads the pair.
    pub fn open(files: &config::Tls) -> Result<Self, TlsError> {
        Self::open_checking(files, CHECK_EVERY)
    }

    fn open_checking(files: &config::Tls, check_every: Duration) -> Result<Self, TlsError> {
        Ok(Self {
            check_every,
            state: Mutex::new(State::read(files)?),
        })
    }

    /// Reads another pair, or the same anew; what this returns is taken up by `take_up`.
    pub fn read(files: &config::Tls) -> Result<Pair, TlsError> {
        State::read(files).map(Pair)
    }

    /// Uses a pair that was read, for the connections that come from now on.
    pub fn take_up(&self, pair: Pair) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = pair.0;
    }

    /// A connection's handshake.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Secured> {
        let acceptor = self.acceptor();
        let limit = |session: &mut ServerConnection| {
            session.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        };
        acceptor.accept_with(stream, limit).await.map(Box::new)
    }

    /// The acceptor for the next connection, of new files where they changed. A new pair that
    /// cannot be used is logged once, and the one before stays.
    fn acceptor(&self) -> TlsAcceptor {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.check_every <= state.checked_at.elapsed() {
            state.checked_at = Instant::now();
            let stamp = stamp(&state.files);
            if stamp != state.stamp {
                state.stamp = stamp;
                match read(&state.files) {
                    Ok(acceptor) => {
                        state.acceptor = acceptor;
                        tracing::info!("the TLS certificate was read again");
                    }
                    Err(error) => {
                        tracing::error!(%error, "cannot use the new certificate");
                    }
                }
            }
        }
        state.acceptor.clone()
    }
}

fn stamp(files: &config::Tls) -> Stamp {
    [&files.certificate, &files.key].map(|path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    })
}

fn read(files: &config::Tls) -> Result<TlsAcceptor, TlsError> {
    let pem = read_file(&files.certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| TlsError::NoCertificate(files.certificate.clone()))?;
    let key = PrivateKeyDer::from_pem_slice(&read_file(&files.key)?)
        .map_err(|_| TlsError::NoKey(files.key.clone()))?;
    let unusable = |source| match source {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
            key: files.key.clone(),
            certificate: files.certificate.clone(),
        },
        source => TlsError::Unusable {
            path: files.certificate.clone(),
            source,
        },
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    /// Writes a fresh certificate and its key.
    fn write_pair(dir: &TempDir, name: &str) -> (config::Tls, CertificateDer<'static>) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec![name.to_owned()]).expect("a pair");
        let files = config::Tls {
            certificate: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        };
        fs::write(&files.certificate, cert.pem()).expect("written");
        fs::write(&files.key, signing_key.serialize_pem()).expect("written");
        (files, cert.der().clone())
    }

    /// The certificate that a client sees.
    async fn served(reloader: &Reloader) -> CertificateDer<'static> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = reloader.acceptor();
        let server = tokio::spawn(async move { acceptor.accept(near).await.map(drop) });
        let seen = Arc::new(Mutex::new(None));
        let verifier = Arc::new(SeeAll(seen.clone()));
        let mut config =
            rustls::ClientConfig::builder_with_provider(ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .expect("versions")
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = "upload.example.org".try_into().expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let client = connector.connect(name, far).await.expect("a handshake");
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        server.await.expect("no panic").expect("a handshake");
        let mut seen = seen.lock().expect("no panic");
        seen.take().expect("a certificate")
    }

    /// Takes any certificate and keeps it.
    #[derive(Debug)]
    struct SeeAll(Arc<Mutex<Option<CertificateDer<'static>>>>);

    impl rustls::client::danger::ServerCertVerifier for SeeAll {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            *self.0.lock().expect("no panic") = Some(end_entity.clone().into_owned());
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            let algorithms = ring::default_provider().signature_verification_algorithms;
            algorithms.supported_schemes()
        }
    }

    #[tokio::test]
    async fn new_files_are_taken_up_and_broken_ones_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, first) = write_pair(&dir, "first.example");
        let reloader = Reloader::open_checking(&files, Duration::ZERO).expect("usable");
        assert_eq!(served(&reloader).await, first);
        fs::write(&files.key, "no key").expect("written");
        assert_eq!(served(&reloader).await, first);
        fs::remove_file(&files.certificate).expect("removed");
        assert_eq!(served(&reloader).await, first);
        let (_, second) = write_pair(&dir, "the-second-one.example");
        assert_eq!(served(&reloader).await, second);
    }

    #[track_caller]
    fn check_refused(files: &config::Tls, words: &str) {
        let error = Reloader::open(files).err().expect("refused").to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn each_wrong_file_has_its_own_words() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, _) = write_pair(&dir, "first.example");
        let swapped = config::Tls {
            certificate: files.key.clone(),
            key: files.certificate.clone(),
        };
        check_refused(&swapped, "key.pem: no certificate in it");
        let no_key = config::Tls {
            key: files.certificate.clone(),
            ..files.clone()
        };
        check_refused(&no_key, "cert.pem: no private key in it");
        let missing = config::Tls {
            key: dir.path().join("other.pem"),
            ..files.clone()
        };
        check_refused(&missing, "other.pem: No such file");
        let other = tempfile::tempdir().expect("a directory");
        let (others, _) = write_pair(&other, "other.example");
        let mixed = config::Tls {
            key: others.key,
            ..files.clone()
        };
        check_refused(&mixed, "this is not the key of");
        fs::write(&files.certificate, "").expect("written");
        check_refused(&files, "cert.pem: no certificate in it");
    }
}

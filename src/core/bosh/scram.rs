//! SCRAM: both sides prove that they know the password, and neither tells it. RFC 5802, RFC 7677.
//!
//! Our own: the crate at hand (`sasl`) knows no SHA-512, takes any number of rounds, draws its
//! nonces itself and leaves passwords in memory. The arithmetic is that of the hashes' crates.

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use zeroize::Zeroizing;

use super::failure::Failure;
use super::password::Password;

/// No channel binding: through a connection manager there is no channel to bind to.
const GS2: &str = "n,,";
/// Fewer rounds (RFC 5802 #5.1) make the password cheap to guess for whoever sees our proof; more
/// than this take a second of our time.
const ROUNDS: RangeInclusive<u32> = 4096..=1_000_000;

/// The hash of a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

/// The mechanisms in the order in which we like them.
const MECHANISMS: [(&str, Hash); 3] = [
    ("SCRAM-SHA-512", Hash::Sha512),
    ("SCRAM-SHA-256", Hash::Sha256),
    ("SCRAM-SHA-1", Hash::Sha1),
];

type Bytes = Zeroizing<Vec<u8>>;

/// A conversation in SCRAM.
pub(super) struct Scram {
    mechanism: &'static str,
    hash: Hash,
    /// Our first message without the GS2 header.
    first: String,
    nonce: String,
    /// What the server has to say; none before we have said our part.
    expected: Option<Bytes>,
    /// Whether it has said so.
    is_verified: bool,
}

impl Scram {
    /// The best of what is offered; none where nothing of it is SCRAM.
    pub(super) fn best_of(offered: &[String], name: &str, nonce: &str) -> Option<Self> {
        let is_offered =
            |(mechanism, _): &&(&str, Hash)| offered.iter().any(|offered| offered == mechanism);
        let (mechanism, hash) = *MECHANISMS.iter().find(is_offered)?;
        // RFC 5802 #5.1: in a name these two stand for something else.
        let name = name.replace('=', "=3D").replace(',', "=2C");
        Some(Self {
            mechanism,
            hash,
            first: format!("n={name},r={nonce}"),
            nonce: nonce.to_owned(),
            expected: None,
            is_verified: false,
        })
    }

    pub(super) fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// The first message.
    pub(super) fn first(&self) -> String {
        format!("{GS2}{}", self.first)
    }

    /// The answer to a challenge: our proof, or nothing where the challenge is the server's.
    pub(super) fn respond(
        &mut self,
        challenge: &[u8],
        password: &Password,
    ) -> Result<Vec<u8>, Failure> {
        if self.is_verified {
            return Err(Failure::Garbled);
        }
        if self.expected.is_some() {
            self.verify(challenge)?;
            return Ok(Vec::new());
        }
        let challenge = std::str::from_utf8(challenge).map_err(|_| Failure::Garbled)?;
        let (nonce, salt, rounds) = self.read(challenge).ok_or(Failure::Garbled)?;
        let salted = self.hash.salted(password.as_bytes(), &salt, rounds);
        let client_key = self.hash.mac(&salted, b"Client Key");
        let stored_key = self.hash.digest(&client_key);
        let server_key = self.hash.mac(&salted, b"Server Key");
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(GS2));
        let said = format!("{},{challenge},{without_proof}", self.first);
        let signature = self.hash.mac(&stored_key, said.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&*signature)
            .map(|(a, b)| a ^ b)
            .collect();
        self.expected = Some(self.hash.mac(&server_key, said.as_bytes()));
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes())
    }

    /// Checks what came with the server's last word; it may have proven itself before.
    pub(super) fn verify_at_end(&mut self, data: &[u8]) -> Result<(), Failure> {
        match self.is_verified && data.is_empty() {
            true => Ok(()),
            false => self.verify(data),
        }
    }

    /// The server's nonce, which begins with ours, its salt, and the number of rounds.
    fn read<'a>(&self, challenge: &'a str) -> Option<(&'a str, Vec<u8>, u32)> {
        // The order is fixed, and what we would have to understand stands before it (`m=`).
        let mut fields = challenge.split(',');
        let mut field = |key| fields.next()?.strip_prefix(key);
        let nonce = field("r=")?;
        let salt = STANDARD.decode(field("s=")?).ok()?;
        let rounds = field("i=")?.parse().ok()?;
        let is_ours = nonce.starts_with(&self.nonce) && self.nonce.len() < nonce.len();
        (is_ours && !salt.is_empty() && ROUNDS.contains(&rounds)).then_some((nonce, salt, rounds))
    }

    fn verify(&mut self, data: &[u8]) -> Result<(), Failure> {
        let told = std::str::from_utf8(data).ok();
        let told = told.and_then(|text| text.split(',').next()?.strip_prefix("v="));
        let told = told.and_then(|text| STANDARD.decode(text).ok());
        let expected = self.expected.as_ref().map(|expected| expected.as_slice());
        self.is_verified = expected.is_some() && told.as_deref() == expected;
        match self.is_verified {
            true => Ok(()),
            false => Err(Failure::NotProven),
        }
    }
}

impl Hash {
    fn mac(self, key: &[u8], text: &[u8]) -> Bytes {
        match self {
            Self::Sha1 => mac::<Hmac<Sha1>>(key, text),
            Self::Sha256 => mac::<Hmac<Sha256>>(key, text),
            Self::Sha512 => mac::<Hmac<Sha512>>(key, text),
        }
    }

    fn digest(self, bytes: &[u8]) -> Bytes {
        Zeroizing::new(match self {
            Self::Sha1 => Sha1::digest(bytes).to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        })
    }

    fn salted(self, password: &[u8], salt: &[u8], rounds: u32) -> Bytes {
        match self {
            Self::Sha1 => salted::<Hmac<Sha1>>(password, salt, rounds),
            Self::Sha256 => salted::<Hmac<Sha256>>(password, salt, rounds),
            Self::Sha512 => salted::<Hmac<Sha512>>(password, salt, rounds),
        }
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8]) -> M {
    <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn mac<M: Mac + KeyInit>(key: &[u8], text: &[u8]) -> Bytes {
    let mac = keyed::<M>(key).chain_update(text);
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

/// `Hi` of RFC 5802 #2.2: the first block of PBKDF2, which is all that SCRAM takes of it.
fn salted<M: Mac + KeyInit + Clone>(password: &[u8], salt: &[u8], rounds: u32) -> Bytes {
    let keyed = keyed::<M>(password);
    let first = keyed.clone().chain_update(salt).chain_update([0, 0, 0, 1]);
    let mut last = first.finalize().into_bytes();
    let mut sum = Zeroizing::new(last.to_vec());
    for _ in 1..rounds {
        last = keyed.clone().chain_update(&last).finalize().into_bytes();
        for (sum, byte) in sum.iter_mut().zip(&last) {
            *sum ^= byte;
        }
    }
    sum
}

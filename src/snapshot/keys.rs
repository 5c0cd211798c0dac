//! Derives master keys from secrets, and finds the key of a file by the key id in its header.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use aws_lc_rs::hkdf::{self, HKDF_SHA256};
use aws_lc_rs::{pbkdf2, rand};
use secrecy::{ExposeSecret, SecretSlice};

use super::secret::{KEY_BYTES, Kind, Secret};

/// Names a key without revealing any of it.
pub type KeyId = [u8; 8];
pub const SALT_BYTES: usize = 16;
const ROUNDS: u32 = 600_000;
/// A file that asks for more is not one of ours: a reader would count for minutes.
const MAX_ROUNDS: u32 = 10_000_000;

/// How the master key comes from the secret; stands in each header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derivation {
    /// The secret is the key.
    None,
    /// PBKDF2-HMAC-SHA256 of a passphrase.
    Pbkdf2 { rounds: u32, salt: [u8; SALT_BYTES] },
}

impl Derivation {
    /// Returns whether a reader may follow it.
    pub fn is_sound(self) -> bool {
        match self {
            Self::None => true,
            Self::Pbkdf2 { rounds, .. } => (ROUNDS..=MAX_ROUNDS).contains(&rounds),
        }
    }
}

pub struct Master {
    pub id: KeyId,
    key: SecretSlice<u8>,
}

impl Master {
    fn new(key: Vec<u8>) -> Option<Self> {
        let mut id = [0; 8];
        expand(&key, b"", b"entitlement-sync key id", &mut id)?;
        let key = key.into();
        Some(Self { id, key })
    }

    /// Returns the key of one file.
    pub fn for_file(&self, salt: &[u8]) -> Option<[u8; KEY_BYTES]> {
        let mut key = [0; KEY_BYTES];
        let info = b"entitlement-sync file key";
        expand(self.key.expose_secret(), salt, info, &mut key)?;
        Some(key)
    }
}

fn expand(key: &[u8], salt: &[u8], info: &[u8], out: &mut [u8]) -> Option<()> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let prk = hkdf::Salt::new(HKDF_SHA256, salt).extract(key);
    let info = [info];
    let okm = prk.expand(&info, Length(out.len())).ok()?;
    okm.fill(out).ok()
}

/// The secrets that files are read with; the first one writes.
pub struct Ring {
    secrets: Vec<Secret>,
    /// Stretching a passphrase takes a good part of a second, so it is done once for each salt.
    derived: Mutex<Vec<(usize, Derivation, Arc<Master>)>>,
}

impl Ring {
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        Self {
            secrets: secrets.into_iter().collect(),
            derived: Mutex::default(),
        }
    }

    /// Returns the key that a header names, if one of the secrets gives it.
    pub(super) fn find(&self, derivation: Derivation, id: &KeyId) -> Option<Arc<Master>> {
        (0..self.secrets.len())
            .filter_map(|which| self.master(which, derivation))
            .find(|master| master.id == *id)
    }

    /// Returns the key that writes. The salt of an earlier file is used again, so that one passphrase is stretched once.
    pub(super) fn writing(&self, seen: Option<Derivation>) -> Option<(Derivation, Arc<Master>)> {
        let derivation = match (&self.secrets.first()?.0, seen) {
            (Kind::Key(_), _) => Derivation::None,
            (Kind::Passphrase(_), Some(seen @ Derivation::Pbkdf2 { .. })) => seen,
            (Kind::Passphrase(_), _) => Derivation::Pbkdf2 {
                rounds: ROUNDS,
                salt: random()?,
            },
        };
        Some((derivation, self.master(0, derivation)?))
    }

    fn master(&self, which: usize, derivation: Derivation) -> Option<Arc<Master>> {
        if !derivation.is_sound() {
            return None;
        }
        let mut derived = self.derived.lock().unwrap_or_else(|lock| lock.into_inner());
        let known = derived
            .iter()
            .find(|(of, by, _)| *of == which && *by == derivation);
        if let Some((_, _, master)) = known {
            return Some(master.clone());
        }
        let key = derive(&self.secrets.get(which)?.0, derivation)?;
        let master = Arc::new(Master::new(key)?);
        derived.push((which, derivation, master.clone()));
        Some(master)
    }
}

fn derive(secret: &Kind, derivation: Derivation) -> Option<Vec<u8>> {
    match (secret, derivation) {
        (Kind::Key(key), Derivation::None) => Some(key.expose_secret().to_vec()),
        (Kind::Passphrase(text), Derivation::Pbkdf2 { rounds, salt }) => {
            let mut key = vec![0; KEY_BYTES];
            let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
            let text = text.expose_secret().as_bytes();
            pbkdf2::derive(algorithm, NonZeroU32::new(rounds)?, &salt, text, &mut key);
            Some(key)
        }
        _ => None,
    }
}

pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

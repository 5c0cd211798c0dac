//! Who may ask: keys that are compared in constant time, and read again when their file changes.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};

use crate::config::ReaderKeys;

/// The keys that open the read API, as digests of one length.
pub struct Access {
    digests: RwLock<Box<[[u8; 32]]>>,
}

const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

impl Access {
    pub fn new(keys: &ReaderKeys) -> Arc<Self> {
        let access = Arc::new(Self::of(&keys.keys));
        if keys.read_again().is_some() {
            tokio::spawn(follow(access.clone(), keys.clone()));
        }
        access
    }

    /// Returns the access by keys that do not change.
    pub fn of(keys: &[SecretString]) -> Self {
        Self {
            digests: RwLock::new(digests(keys)),
        }
    }

    /// Whether this key is one of those. Takes as long for each key, right or wrong.
    pub fn admits(&self, key: &[u8]) -> bool {
        let presented = sha256(key);
        let known = self.digests.read().unwrap_or_else(|lock| lock.into_inner());
        let is_equal = |known: &[u8; 32]| verify_slices_are_equal(known, &presented).is_ok();
        known
            .iter()
            .fold(false, |found, known| found | is_equal(known))
    }

    fn replace(&self, keys: &[SecretString]) -> bool {
        let digests = digests(keys);
        let mut known = self
            .digests
            .write()
            .unwrap_or_else(|lock| lock.into_inner());
        let is_new = *known != digests;
        *known = digests;
        is_new
    }
}

fn digests(keys: &[SecretString]) -> Box<[[u8; 32]]> {
    keys.iter()
        .map(|key| sha256(key.expose_secret().as_bytes()))
        .collect()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    array.copy_from_slice(digest(&SHA256, bytes).as_ref());
    array
}

/// Reads the file again and again. What cannot be read changes nothing.
async fn follow(access: Arc<Access>, keys: ReaderKeys) {
    let mut is_readable = true;
    loop {
        tokio::time::sleep(FILE_CHECK_INTERVAL).await;
        let of_file = keys.clone();
        let read = tokio::task::spawn_blocking(move || of_file.read_again()).await;
        match read {
            Ok(Some(Ok(keys))) => {
                if access.replace(&keys) {
                    tracing::info!(keys = keys.len(), "the keys of readers have changed");
                }
                is_readable = true;
            }
            Ok(Some(Err(problem))) => {
                if std::mem::take(&mut is_readable) {
                    tracing::warn!("{problem}; the keys of readers stay as they were");
                }
            }
            Ok(None) | Err(_) => return,
        }
    }
}

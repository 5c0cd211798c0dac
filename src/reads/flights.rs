//! One load for all who ask for the same owner at the same moment.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::runtime::Handle;

use super::copy::OwnerKey;
use crate::keys::Owner;
use crate::store::Mark;

/// The load of an owner, of which any number may wait.
pub type Flight<T> = Shared<BoxFuture<'static, Option<T>>>;

pub struct Flights<T> {
    runtime: Handle,
    under_way: Arc<Mutex<HashMap<OwnerKey, Entry<T>>>>,
}

struct Entry<T> {
    mark: Mark,
    flight: Flight<T>,
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// The runtime of all loads, also of those whose questions have gone.
    pub fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            under_way: Arc::default(),
        }
    }

    /// The load under way, if it `is_current`; else a new one, which begins now. It ends even if no question waits for it.
    pub fn join<F>(
        &self,
        owner: Owner<'_>,
        mark: Mark,
        is_current: impl Fn(Mark) -> bool,
        load: impl FnOnce() -> F,
    ) -> (Flight<T>, Joined)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut under_way = self.lock();
        let key = OwnerKey::of(owner);
        if let Some(entry) = under_way.get(&key)
            && is_current(entry.mark)
        {
            return (entry.flight.clone(), Joined::Other);
        }
        let flight = self.alone(load());
        let entry = Entry {
            mark,
            flight: flight.clone(),
        };
        under_way.insert(key.clone(), entry);
        drop(under_way);
        let (all, own) = (self.under_way.clone(), flight.clone());
        self.runtime.spawn(async move {
            own.clone().await;
            let mut all = all.lock().unwrap_or_else(|lock| lock.into_inner());
            // Another may have taken its place.
            if all.get(&key).is_some_and(|entry| entry.flight.ptr_eq(&own)) {
                all.remove(&key);
            }
        });
        (flight, Joined::Own)
    }

    /// Begins a load that no other question joins. It ends even if no question waits for it.
    pub fn alone(&self, load: impl Future<Output = T> + Send + 'static) -> Flight<T> {
        let task = self.runtime.spawn(load);
        async move { task.await.ok() }.boxed().shared()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OwnerKey, Entry<T>>> {
        self.under_way
            .lock()
            .unwrap_or_else(|lock| lock.into_inner())
    }
}

/// Whose load it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    Own,
    Other,
}

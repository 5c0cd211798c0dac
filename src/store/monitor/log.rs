//! The log lines of the gate. Each says what stops meanwhile, which depends on what the process does.

use crate::store::StoreError;

/// What the process does.
#[derive(Debug, Clone, Copy)]
pub enum Role {
    /// It consumes a queue, and its state is in Redis.
    Consuming,
    /// It consumes a queue, and holds the state itself.
    OwnStore,
    /// It only answers questions.
    Answering,
}

/// The gate has closed.
pub fn closed(role: Role, error: &StoreError) {
    match role {
        Role::OwnStore => {
            tracing::error!(%error, "the journal cannot be written; receiving stops until it can");
        }
        Role::Consuming if error.is_of_database() => {
            tracing::error!(%error, "Redis does not have this database: check REDIS_DB; receiving stops until it takes writes");
        }
        Role::Consuming if error.needs_a_person() => {
            tracing::error!(%error, "Redis denied access: check REDIS_PASSWORD, REDIS_USER and its permissions; receiving stops until it takes writes");
        }
        Role::Consuming => {
            tracing::warn!(%error, "Redis takes no writes; receiving stops until it does");
        }
        Role::Answering if error.is_of_database() || error.needs_a_person() => still_closed(error),
        Role::Answering => {
            tracing::warn!(%error, "Redis takes no writes; fetched customers are kept in memory only until it does");
        }
    }
}

/// The gate is closed, and a probe failed with another error than the one before.
pub fn still_closed(error: &StoreError) {
    if error.is_of_database() {
        tracing::error!(%error, "Redis does not have this database: check REDIS_DB");
    } else if error.needs_a_person() {
        tracing::error!(%error, "Redis denied access: check REDIS_PASSWORD, REDIS_USER and its permissions");
    } else {
        tracing::warn!(%error, "Redis health check failed");
    }
}

/// The gate has opened.
pub fn opened(role: Role) {
    match role {
        Role::Consuming | Role::Answering => tracing::info!("Redis takes writes"),
        Role::OwnStore => tracing::info!("the state in memory takes changes"),
    }
}

/// The marker in Redis has changed.
pub fn lost_data(role: Role) {
    match role {
        Role::Answering => tracing::error!(
            "Redis lost its data: the customers of the last hour are loaded from the Edge API"
        ),
        Role::Consuming | Role::OwnStore => tracing::error!(
            "Redis lost its data: usage updates are skipped until the customers are loaded again by an SDK or an entitlements event"
        ),
    }
}

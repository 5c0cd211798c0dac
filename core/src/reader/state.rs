//! Holds the readable state of one owner, compact and complete enough to answer without Redis.

mod building;

use serde_json::Value;

use super::pack::{Bytes, Writer};
use super::{Access, Entitlement, Kind, Map, NO_FEATURE, Request, Stored, millis, resource_miss};
use building::Building;

/// Why the stored state cannot answer, so that the Edge API is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Miss {
    /// There is no entitlements value.
    Absent,
    /// The entitlements value is unreadable.
    Unreadable,
    /// A value without its timestamp, which prevents comparisons.
    Torn,
    /// A resource that is older than its customer, or whose customer is missing.
    StaleResource,
    /// The usage of a metered feature is missing.
    Usage,
    /// An entitlement was valid until a time that has passed.
    Expired,
    /// A credit entitlement: its layout is not published.
    Credits,
}

impl Miss {
    pub const ALL: [Self; 7] = [
        Self::Absent,
        Self::Unreadable,
        Self::Torn,
        Self::StaleResource,
        Self::Usage,
        Self::Expired,
        Self::Credits,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Unreadable => "unreadable",
            Self::Torn => "torn",
            Self::StaleResource => "stale_resource",
            Self::Usage => "usage",
            Self::Expired => "expired",
            Self::Credits => "credits",
        }
    }
}

/// The parsed state of one owner.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The entitlements, one after the other.
    packed: Box<[u8]>,
    updated_at: Option<i64>,
    denied: Option<Box<str>>,
    expires_at: f64,
    miss: Option<Miss>,
    has_credits: bool,
    has_metered: bool,
    omits_credits: bool,
}

/// An entitlement of a [`State`] at one time.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    pub entitlement: Entitlement<'a>,
    /// It was valid until a time that has passed.
    pub is_expired: bool,
}

impl Entry<'_> {
    /// Decides whether the customer has access to the request. An expired entitlement is denied.
    pub fn decide(&self, request: &Request) -> Access<'_> {
        if self.is_expired {
            return Access::Denied(NO_FEATURE.into());
        }
        if !self.entitlement.is_whole() {
            return Access::Unreadable("its usage is missing");
        }
        self.entitlement.decide(request)
    }

    /// Returns whether its usage is unlimited. That of an expired entitlement is not.
    pub fn is_unlimited(&self) -> bool {
        !self.is_expired && self.entitlement.is_unlimited()
    }

    /// Returns whether it can be decided.
    pub fn is_decided(&self) -> bool {
        self.is_expired || self.entitlement.is_whole()
    }
}

impl State {
    /// Parses the stored values, or returns why they cannot answer anything.
    pub fn read(stored: &Stored, is_resource: bool) -> Result<Self, Miss> {
        let entries = match Map::read(stored.entitlements.value.as_deref()) {
            Map::Missing => return Err(Miss::Absent),
            Map::Unreadable(_) => return Err(Miss::Unreadable),
            Map::Entries(entries) => entries,
        };
        let updated_at = stored.entitlements.timestamp.as_deref().and_then(millis);
        let own = stored.entitlements.timestamp.as_deref();
        let of_customer = stored.customer_timestamp.as_deref();
        if updated_at.is_none() {
            return Err(Miss::Torn);
        }
        if is_resource && resource_miss(own, of_customer).is_some() {
            return Err(Miss::StaleResource);
        }
        let mut building = Building::default();
        for (feature, entry) in entries {
            building.add(feature, entry.get(), stored)?;
        }
        let metadata = stored.metadata.value.as_deref();
        let metadata: Value = metadata
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let denied = metadata["accessDeniedReason"].as_str().map(Box::from);
        Ok(building.finish(updated_at, denied))
    }

    /// Returns the state of a customer without any entitlement and without a time.
    pub fn empty(denied: Option<&str>) -> Self {
        Building::default().finish(None, denied.map(Box::from))
    }

    /// Returns why the Edge API must be asked all the same, if it must.
    pub fn miss(&self, now: f64) -> Option<Miss> {
        self.miss
            .or((self.expires_at <= now).then_some(Miss::Expired))
    }

    /// Returns when an answer of now expires by time alone, in milliseconds since 1970.
    pub fn good_until(&self, now: f64) -> f64 {
        let ends = self.entries(now).filter_map(|entry| {
            let it = entry.entitlement;
            it.period_end().filter(|_| it.kind == Kind::Metered)
        });
        let expiry = Some(self.expires_at).filter(|at| *at > now);
        ends.filter(|at| *at >= now)
            .chain(expiry)
            .fold(f64::INFINITY, f64::min)
    }

    /// Returns the time of the entitlements at their source.
    pub fn updated_at(&self) -> Option<i64> {
        self.updated_at
    }

    /// Returns the metadata: why the whole customer is denied.
    pub fn denied(&self) -> Option<&str> {
        self.denied.as_deref()
    }

    /// Returns whether a feature is paid with credits.
    pub fn has_credits(&self) -> bool {
        self.has_credits
    }

    /// Returns this state of an owner that also has credit entitlements, which a state cannot hold.
    #[must_use]
    pub fn omitting_credits(self) -> Self {
        Self {
            omits_credits: true,
            ..self
        }
    }

    /// Returns whether the owner has credit entitlements that this state does not hold.
    pub fn omits_credits(&self) -> bool {
        self.omits_credits
    }

    /// Returns whether access depends on usage.
    pub fn has_metered(&self) -> bool {
        self.has_metered
    }

    /// Returns whether the customer has no entitlement.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// Returns the entitlement of a feature.
    pub fn find(&self, feature: &str, now: f64) -> Option<Entry<'_>> {
        let entitlement = Entitlement::unpack(&mut Bytes(&self.packed), Some(feature))?;
        // A request for one feature treats a value that is false in JavaScript as missing.
        (!entitlement.is_falsy()).then(|| entry(entitlement, now))
    }

    /// Returns all entitlements, in stored order.
    pub fn entries(&self, now: f64) -> impl Iterator<Item = Entry<'_>> {
        let mut bytes = Bytes(&self.packed);
        std::iter::from_fn(move || Some(entry(Entitlement::unpack(&mut bytes, None)?, now)))
    }

    /// Returns the bytes that it takes beside itself.
    pub fn heap_bytes(&self) -> usize {
        self.packed.len() + self.denied.as_ref().map_or(0, |denied| denied.len())
    }

    /// Returns it as bytes for a later [`Self::from_bytes`] of the same version of this crate.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let miss = self.miss.map(|miss| miss as u8 + 1);
        let flags = [
            self.has_credits,
            self.has_metered,
            self.updated_at.is_some(),
            self.denied.is_some(),
            self.omits_credits,
        ];
        let flags = flags
            .iter()
            .rev()
            .fold(0, |all, it| all << 1 | u8::from(*it));
        writer.0.extend([flags, miss.unwrap_or(0)]);
        writer.0.extend(self.expires_at.to_le_bytes());
        writer.0.extend(self.updated_at.unwrap_or(0).to_le_bytes());
        writer.text(self.denied.as_deref().unwrap_or_default().as_bytes());
        writer.text(&self.packed);
        writer.0
    }

    /// Reads bytes of [`Self::to_bytes`]; `None` for any others. Takes no more memory than they have.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(bytes);
        let [flags, miss] = bytes.array()?;
        let is_set = |at: u8| flags >> at & 1 == 1;
        let expires_at = f64::from_le_bytes(bytes.array()?);
        let updated_at = i64::from_le_bytes(bytes.array()?);
        let denied = bytes.text()?;
        let packed = bytes.part()?;
        let is_end = bytes.0.is_empty();
        let state = Self {
            packed: packed.into(),
            updated_at: is_set(2).then_some(updated_at),
            denied: is_set(3).then(|| denied.into()),
            expires_at,
            miss: match miss {
                0 => None,
                miss => Some(*Miss::ALL.get(usize::from(miss) - 1)?),
            },
            has_credits: is_set(0),
            has_metered: is_set(1),
            omits_credits: is_set(4),
        };
        let mut entitlements = Bytes(packed);
        while !entitlements.0.is_empty() {
            Entitlement::unpack(&mut entitlements, None)?;
        }
        (is_end && flags < 32 && !expires_at.is_nan()).then_some(state)
    }
}

fn entry(entitlement: Entitlement<'_>, now: f64) -> Entry<'_> {
    let entitlement = entitlement.at(now);
    Entry {
        is_expired: entitlement.valid_until().is_some_and(|until| until <= now),
        entitlement,
    }
}

#[cfg(test)]
mod tests;

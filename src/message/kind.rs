//! What an event is about.

/// The kinds of event, as the vendor names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    EntitlementsUpdated,
    UsageUpdated,
    CreditBalanceUpdated,
    Purge,
    PackagePublished,
    /// Known to the vendor, not to us: acknowledged without effect.
    Other,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::EntitlementsUpdated,
        Self::UsageUpdated,
        Self::CreditBalanceUpdated,
        Self::Purge,
        Self::PackagePublished,
        Self::Other,
    ];

    /// Compared without case, and with `.`, `_` and `-` equal (here: without them).
    pub(super) fn named(name: &str) -> Self {
        const LONGEST: usize = "purgecustomerpersistentcacherequested".len();
        let mut spelt = [0; LONGEST];
        let mut length = 0;
        for letter in name.bytes().filter(|it| !matches!(it, b'.' | b'_' | b'-')) {
            let Some(place) = spelt.get_mut(length) else {
                return Self::Other;
            };
            *place = letter.to_ascii_lowercase();
            length += 1;
        }
        match std::str::from_utf8(&spelt[..length]).unwrap_or_default() {
            "entitlementsupdated" | "entitlementsupdatedv2" => Self::EntitlementsUpdated,
            "measurementreported" | "usageupdated" | "usageupdatedv2" => Self::UsageUpdated,
            "creditbalanceupdated" => Self::CreditBalanceUpdated,
            "subscriptionsmigrated"
            | "purgecustomerpersistentcacherequested"
            | "customerdeleted" => Self::Purge,
            "packagepublished" => Self::PackagePublished,
            _ => Self::Other,
        }
    }

    /// For labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EntitlementsUpdated => "entitlements_updated",
            Self::UsageUpdated => "measurement_reported",
            Self::CreditBalanceUpdated => "credit_balance_updated",
            Self::Purge => "purge",
            Self::PackagePublished => "package_published",
            Self::Other => "other",
        }
    }
}

//! Recognises the kind of an event by its name.

/// The kinds of event, as the vendor names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    EntitlementsUpdated,
    UsageUpdated,
    CreditBalanceUpdated,
    Purge,
    PackagePublished,
    /// Another event: without effect on keys, or not recognised.
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

    /// Returns the name for labels and logs.
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

/// The meaning of the name of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A kind that changes keys.
    Effect(Kind),
    /// A published kind that changes none.
    NoEffect(Kind),
    Unknown,
}

/// Published kinds that change no key (`EventLogType` of `@stigg/api-client-js` 3.108.0); a star
/// matches more words. Separators are omitted.
const WITHOUT_EFFECT: [(&str, &str); 31] = [
    ("addon", "*"),
    ("coupon", "*"),
    ("createsubscriptionfailed", ""),
    ("credits", "*old"),
    ("creditbalancedepleted", ""),
    ("creditbalancelow", ""),
    ("creditgrant", "*"),
    ("customercreated", ""),
    ("customerupdated", ""),
    ("customerpaymentfailed", ""),
    ("customerentitlementcalculationtriggered", ""),
    ("customerresourceentitlementcalculationtriggered", ""),
    ("edgeapi", "*"),
    ("entitlementdenied", ""),
    ("entitlementgranted", ""),
    ("entitlementrequested", ""),
    ("entitlementusageexceeded", ""),
    ("environmentdeleted", ""),
    ("feature", "*"),
    ("import", "*"),
    ("packagegroup", "*"),
    ("packagepublished", ""),
    ("plan", "*"),
    ("product", "*"),
    ("promotionalentitlement", "*"),
    ("recalculateentitlementstriggered", ""),
    ("resyncintegrationtriggered", ""),
    ("subscriptionsmigrationtriggered", ""),
    ("subscription", "*"),
    ("syncfailed", ""),
    ("widget", "*"),
];

/// Parses a name: it is compared without case and separators, without a reverse-domain prefix and without a
/// version at the end.
pub(super) fn meaning(name: &str) -> Meaning {
    // Most names have their published spelling.
    const MAX_NAME_LENGTH: usize = "purgecustomerpersistentcacherequested".len();
    let mut buffer = [0; MAX_NAME_LENGTH];
    if let Some(name) = squeeze(name, &mut buffer)
        && let Some(kind) = effect(name)
    {
        return Meaning::Effect(kind);
    }
    let words = words(without_domain(name));
    let words = without_version(&words);
    let joined = words.concat();
    let joined = match joined
        .trim_end_matches(|it: char| it.is_ascii_digit())
        .strip_suffix('v')
    {
        Some(name) if !joined.ends_with('v') => name.to_owned(),
        _ => joined,
    };
    if let Some(kind) = effect(&joined) {
        return Meaning::Effect(kind);
    }
    if joined == "packagepublished" {
        return Meaning::NoEffect(Kind::PackagePublished);
    }
    // A frame of GraphQL or of Phoenix that carries an event, not an event of a subscription.
    let is_frame = joined == "subscriptiondata";
    match !is_frame
        && WITHOUT_EFFECT
            .iter()
            .any(|rule| matches(words, &joined, rule))
    {
        true => Meaning::NoEffect(Kind::Other),
        false => Meaning::Unknown,
    }
}

/// Returns whether a name ends in a past participle, as names of events do ("planCreated"), unlike
/// other names that begin alike ("planName").
pub(super) fn is_past(name: &str) -> bool {
    let words = words(name);
    without_version(&words)
        .last()
        .is_some_and(|word| word.ends_with("ed"))
}

fn effect(squeezed: &str) -> Option<Kind> {
    Some(match squeezed {
        "entitlementsupdated" | "entitlementsupdatedv2" => Kind::EntitlementsUpdated,
        "measurementreported" | "usageupdated" | "usageupdatedv2" => Kind::UsageUpdated,
        "creditbalanceupdated" => Kind::CreditBalanceUpdated,
        "subscriptionsmigrated" | "purgecustomerpersistentcacherequested" | "customerdeleted" => {
            Kind::Purge
        }
        _ => return None,
    })
}

fn matches(words: &[String], joined: &str, (start, rest): &(&str, &str)) -> bool {
    let Some(more) = joined.strip_prefix(start) else {
        return false;
    };
    let Some(end) = rest.strip_prefix('*') else {
        return more.is_empty();
    };
    // "PLAN_*" is about plans, not about planets; a name without separators must end as the published names do.
    let mut length = 0;
    let at_a_word = words.iter().any(|word| {
        length += word.len();
        length == start.len()
    });
    !more.is_empty()
        && more.ends_with(end)
        && (at_a_word || (words.len() == 1 && ends_as_kinds_do(more)))
}

fn ends_as_kinds_do(name: &str) -> bool {
    let ends = ["ed", "soon", "resync", "old"];
    ends.iter().any(|end| name.ends_with(end))
}

/// Returns the name in lower case without separators, if it fits.
fn squeeze<'b>(name: &str, buffer: &'b mut [u8]) -> Option<&'b str> {
    let mut length = 0;
    for letter in name.bytes().filter(|it| !matches!(it, b'.' | b'_' | b'-')) {
        *buffer.get_mut(length)? = letter.to_ascii_lowercase();
        length += 1;
    }
    std::str::from_utf8(&buffer[..length]).ok()
}

/// Removes the prefix of `com.stigg.entitlements.updated` or `stigg.…`.
fn without_domain(name: &str) -> &str {
    const TOPS: [&str; 8] = ["com", "io", "net", "org", "dev", "app", "co", "ai"];
    let mut rest = name.trim();
    if let Some((first, more)) = rest.split_once('.')
        && TOPS.iter().any(|top| first.eq_ignore_ascii_case(top))
        && let Some((_, more)) = more.split_once('.')
    {
        rest = more;
    }
    for vendor in ["stigg.", "stigg:", "stigg/", "stigg_", "stigg-"] {
        if rest
            .get(..vendor.len())
            .is_some_and(|it| it.eq_ignore_ascii_case(vendor))
        {
            rest = &rest[vendor.len()..];
        }
    }
    rest
}

/// Splits a name into words, in lower case: at separators, and where a capital letter follows a
/// small one.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_small = false;
    for letter in name.chars().take(256) {
        let is_word = letter.is_alphanumeric();
        if (!is_word || (after_small && letter.is_uppercase()))
            && words.last().is_some_and(|word| !word.is_empty())
        {
            words.push(String::new());
        }
        if is_word && let Some(word) = words.last_mut() {
            word.extend(letter.to_lowercase());
        }
        after_small = letter.is_lowercase() || letter.is_ascii_digit();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Removes a version at the end, for example "v2", even if it is not a separate word ("updatedV2" as
/// "updatedv2").
fn without_version(words: &[String]) -> &[String] {
    let is_version = |word: &str| {
        let digits = word.strip_prefix('v').unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit())
    };
    match words {
        [rest @ .., last] if is_version(last) && !rest.is_empty() => rest,
        // "V" and "2" in two words, as in "v.2".
        [rest @ .., v, digits]
            if v == "v" && digits.bytes().all(|it| it.is_ascii_digit()) && !rest.is_empty() =>
        {
            rest
        }
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case_separators_domain_and_version() {
        for name in [
            "ENTITLEMENTS_UPDATED",
            "entitlements.updated",
            "entitlementsUpdated",
            "EntitlementsUpdatedV2",
            "ENTITLEMENTS_UPDATED_V3",
            "entitlements.updated.v1",
            "com.stigg.entitlements.updated",
            "io.stigg.entitlements.updated.v12",
            "stigg.entitlements-updated",
            "stigg/entitlements:updated",
            " Entitlements Updated ",
            "entitlementsupdatedv3",
        ] {
            assert_eq!(
                meaning(name),
                Meaning::Effect(Kind::EntitlementsUpdated),
                "{name}"
            );
        }
        assert_eq!(
            meaning("usageUpdatedV2"),
            Meaning::Effect(Kind::UsageUpdated)
        );
        assert_eq!(
            meaning("com.stigg.customer.deleted"),
            Meaning::Effect(Kind::Purge)
        );
    }

    #[test]
    fn published_kinds_without_effect_are_told_from_unknown_ones() {
        for name in [
            "PLAN_CREATED",
            "planUpdated",
            "subscription.created",
            "SUBSCRIPTION_TRIAL_ENDS_SOON",
            "SUBSCRIPTIONS_MIGRATION_TRIGGERED",
            "CREDITS_GRANTED_OLD",
            "credit.balance.low",
            "EDGE_API_DATA_RESYNC",
            "com.stigg.customer.updated.v2",
            "WIDGET_CONFIGURATION_UPDATED",
            "plancreated",
            "subscriptiontrialendssoon",
        ] {
            assert_eq!(meaning(name), Meaning::NoEffect(Kind::Other), "{name}");
        }
        for name in [
            "customer.renamed",
            "PLANET_FOUND",
            "planet",
            "IMPORTANT",
            "productivity",
            "subscription_data",
            "subscription:data",
            "plan",
            "FEATURE",
            "CREDITS_GRANTED",
            "",
            "v2",
            "entitlements.updated.now",
        ] {
            assert_eq!(meaning(name), Meaning::Unknown, "{name}");
        }
        assert_eq!(
            meaning("packagePublished"),
            Meaning::NoEffect(Kind::PackagePublished)
        );
    }
}

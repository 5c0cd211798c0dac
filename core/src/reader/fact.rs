//! Names the values that are kept of an entitlement.

/// A stored value of an entitlement. The usage key of a metered feature is merged over the usage of the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    AccessDeniedReason,
    CreditRate,
    CurrentUsage,
    Description,
    DisplayName,
    EnumValues,
    FeatureType,
    MeterType,
    PeriodAnchor,
    PeriodEnd,
    PeriodStart,
    ResetPeriod,
    /// Present only if `ResetPeriod` is not a text.
    ResetPeriodOfLimit,
    ResetPeriodConfiguration,
    ResourceId,
    UnitTransformation,
    Units,
    UnitsPlural,
    /// The timestamp of the usage key.
    UsageAt,
    UsageLimit,
    ValidUntil,
}

impl Fact {
    /// In the order of the enum.
    pub const ALL: [Self; 21] = [
        Self::AccessDeniedReason,
        Self::CreditRate,
        Self::CurrentUsage,
        Self::Description,
        Self::DisplayName,
        Self::EnumValues,
        Self::FeatureType,
        Self::MeterType,
        Self::PeriodAnchor,
        Self::PeriodEnd,
        Self::PeriodStart,
        Self::ResetPeriod,
        Self::ResetPeriodOfLimit,
        Self::ResetPeriodConfiguration,
        Self::ResourceId,
        Self::UnitTransformation,
        Self::Units,
        Self::UnitsPlural,
        Self::UsageAt,
        Self::UsageLimit,
        Self::ValidUntil,
    ];
}

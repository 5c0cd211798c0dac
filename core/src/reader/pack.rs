//! Packs entitlements into bytes: a customer of five features takes about 400 bytes, where Redis holds 3 kB of JSON.
//!
//! An entitlement is its length, the feature, its kind and verdict, its marks, a bit for each [`Fact`] that is not
//! null, and those facts. Lengths and numbers are varints. Whoever stores these bytes versions them: the order of
//! [`KNOWN`], of `Fact` and of the tags is part of the format.

use std::borrow::Cow;

use super::entitlement::{Marks, Verdict};
use super::{Datum, Entitlement, Fact, Kind};

/// Values that most entitlements have, stored as one byte.
const KNOWN: &[Datum<'static>] = &[
    text(""),
    text("BOOLEAN"),
    text("NUMBER"),
    text("ENUM"),
    text("None"),
    text("Incremental"),
    text("Fluctuating"),
    text("HOUR"),
    text("DAY"),
    text("WEEK"),
    text("MONTH"),
    text("YEAR"),
    text("NoFeatureEntitlementInSubscription"),
    text("NoActiveSubscription"),
    text("CustomerNotFound"),
    text("RequestedUsageExceedingLimit"),
    text("BudgetExceeded"),
    text("Revoked"),
    json("[]"),
    json("{}"),
    json(r#"{"__typename":"MonthlyResetPeriodConfig","monthlyAccordingTo":"SubscriptionStart"}"#),
    json(r#"{"__typename":"MonthlyResetPeriodConfig","monthlyAccordingTo":"StartOfTheMonth"}"#),
    json(r#"{"__typename":"WeeklyResetPeriodConfig","weeklyAccordingTo":"SubscriptionStart"}"#),
    json(r#"{"__typename":"YearlyResetPeriodConfig","yearlyAccordingTo":"SubscriptionStart"}"#),
    json(r#"{"monthlyAccordingTo":"SubscriptionStart"}"#),
    json(r#"{"weeklyAccordingTo":"SubscriptionStart"}"#),
    json(r#"{"yearlyAccordingTo":"SubscriptionStart"}"#),
];

const fn text(text: &'static str) -> Datum<'static> {
    Datum::Text(Cow::Borrowed(text))
}

const fn json(json: &'static str) -> Datum<'static> {
    Datum::Json(Cow::Borrowed(json))
}

/// The first byte of a value; from `KNOWN_TAG` on, a place in [`KNOWN`].
const FALSE: u8 = 0;
const TRUE: u8 = 1;
const INT: u8 = 2;
const NEGATIVE: u8 = 3;
const LARGE: u8 = 4;
const FLOAT: u8 = 5;
const TEXT: u8 = 6;
const JSON: u8 = 7;
const KNOWN_TAG: u8 = 128;

/// Bytes that grow.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn number(&mut self, mut number: u64) {
        while number >= 128 {
            self.0.push(number as u8 | 128);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// Writes its length before it.
    pub fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text);
    }

    pub fn datum(&mut self, datum: &Datum<'_>) {
        if let Some(at) = KNOWN.iter().position(|known| known == datum) {
            return self.0.push(KNOWN_TAG + at as u8);
        }
        match datum {
            // Null is not written.
            Datum::Null | Datum::Bool(false) => self.0.push(FALSE),
            Datum::Bool(true) => self.0.push(TRUE),
            Datum::Int(number @ 0..) => self.tagged(INT, *number as u64),
            Datum::Int(number) => self.tagged(NEGATIVE, !*number as u64),
            Datum::Large(number) => self.tagged(LARGE, *number),
            Datum::Float(number) => {
                self.0.push(FLOAT);
                self.0.extend(number.to_le_bytes());
            }
            Datum::Text(text) => {
                self.0.push(TEXT);
                self.text(text.as_bytes());
            }
            Datum::Json(text) => {
                self.0.push(JSON);
                self.text(text.as_bytes());
            }
        }
    }

    fn tagged(&mut self, tag: u8, number: u64) {
        self.0.push(tag);
        self.number(number);
    }
}

/// Reads bytes, which may be anything: `None` where they are not what they should be.
#[derive(Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 127);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte < 128 {
                return Some(number);
            }
        }
        None
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    /// Reads what [`Writer::text`] wrote, without a copy.
    pub fn part(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (part, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(part)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.part()?).ok()
    }

    fn datum(&mut self) -> Option<Datum<'a>> {
        let datum = match self.byte()? {
            FALSE => Datum::Bool(false),
            TRUE => Datum::Bool(true),
            INT => Datum::Int(self.number()?.try_into().ok()?),
            NEGATIVE => Datum::Int(!i64::try_from(self.number()?).ok()?),
            LARGE => Datum::Large(self.number()?),
            FLOAT => Datum::Float(f64::from_le_bytes(self.array()?)),
            TEXT => Datum::Text(self.text()?.into()),
            JSON => Datum::Json(self.text()?.into()),
            tag => {
                let at = tag.checked_sub(KNOWN_TAG)?;
                KNOWN.get(usize::from(at))?.borrowed()
            }
        };
        Some(datum)
    }
}

const KINDS: [Kind; 5] = [
    Kind::Boolean,
    Kind::Numeric,
    Kind::Metered,
    Kind::Enum,
    Kind::Unknown,
];
const VERDICTS: [Verdict; 6] = [
    Verdict::Open,
    Verdict::Denied,
    Verdict::NoFeature,
    Verdict::NoEntitlement,
    Verdict::UnknownType,
    Verdict::NoUsage,
];

impl<'a> Entitlement<'a> {
    /// Appends the entitlement.
    pub(super) fn pack(&self, writer: &mut Writer) {
        let mut own = Writer::default();
        own.text(self.feature.as_bytes());
        own.0
            .extend([self.kind as u8 | (self.verdict as u8) << 4, self.marks.0]);
        let is_set = |(at, fact): (usize, &Datum<'_>)| u64::from(!fact.is_null()) << at;
        own.number(self.facts.iter().enumerate().map(is_set).sum());
        for fact in self.facts.iter().filter(|fact| !fact.is_null()) {
            own.datum(fact);
        }
        writer.text(&own.0);
    }

    /// Reads the next one of a feature, or of any.
    pub(super) fn unpack(bytes: &mut Bytes<'a>, wanted: Option<&str>) -> Option<Self> {
        loop {
            let mut own = Bytes(bytes.part()?);
            let feature = own.part()?;
            if wanted.is_none_or(|wanted| wanted.as_bytes() == feature) {
                return Self::unpack_own(std::str::from_utf8(feature).ok()?, own);
            }
        }
    }

    fn unpack_own(feature: &'a str, mut own: Bytes<'a>) -> Option<Self> {
        let [kind, marks] = own.array()?;
        let is_there = own.number()?;
        let mut facts = [const { Datum::Null }; Fact::ALL.len()];
        for (at, fact) in facts.iter_mut().enumerate() {
            if is_there >> at & 1 == 1 {
                *fact = own.datum()?;
            }
        }
        let is_known = is_there >> Fact::ALL.len() == 0 && own.0.is_empty();
        is_known.then_some(Self {
            feature: feature.into(),
            kind: *KINDS.get(usize::from(kind & 15))?,
            is_period_over: false,
            verdict: *VERDICTS.get(usize::from(kind >> 4))?,
            marks: Marks(marks),
            facts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored bytes name them by their place: add new ones at the end.
    #[test]
    fn known_values_keep_their_places() {
        let known: Vec<_> = KNOWN.iter().map(Datum::plain).collect();
        let first = [
            "",
            "BOOLEAN",
            "NUMBER",
            "ENUM",
            "None",
            "Incremental",
            "Fluctuating",
            "HOUR",
            "DAY",
            "WEEK",
            "MONTH",
            "YEAR",
            "NoFeatureEntitlementInSubscription",
            "NoActiveSubscription",
            "CustomerNotFound",
            "RequestedUsageExceedingLimit",
            "BudgetExceeded",
            "Revoked",
            "[]",
            "{}",
        ];
        assert_eq!(known[..first.len()], first);
        let periods: Vec<_> = known[first.len()..27].iter().map(|it| it.len()).collect();
        assert_eq!(periods, [82, 80, 80, 80, 42, 41, 41]);
    }
}

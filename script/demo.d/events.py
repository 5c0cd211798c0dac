"""The messages of the story, in the shapes that Stigg publishes: webhook, GraphQL and event."""

import time
from datetime import datetime, timezone

# Everything happened within the last hour, so that nothing of it has expired.
_START_MS = int(time.time() * 1000) - 3_600_000
PERIOD_START_MS = _START_MS - 10 * 86_400_000
PERIOD_END_MS = _START_MS + 20 * 86_400_000


def at_ms(minute):
    return _START_MS + minute * 60_000


def iso(ms):
    return datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(minute):
    """A minute of the story as people say it."""
    return datetime.fromtimestamp(at_ms(minute) / 1000, timezone.utc).strftime("%H:%M")


def _webhook(feature_id, feature_type, meter_type, unit, own):
    return {
        "feature": {"id": feature_id, "name": feature_id.title(), "featureType": feature_type, "meterType": meter_type,
                    "unit": unit, "units": unit and unit + "s"},
        "usageLimit": None, "hasUnlimitedUsage": False, "hasSoftLimit": False, "currentUsage": None, "enumValues": None,
        "usagePeriodAnchor": None, "usagePeriodStart": None, "usagePeriodEnd": None, "resetPeriod": None,
        "resetPeriodConfiguration": None, **own,
    }


def signed_up(minute):
    """A webhook body: four entitlements, one of each kind."""
    month = {"resetPeriod": "MONTH", "resetPeriodConfiguration": {"accordingTo": "SubscriptionStart"},
             "usagePeriodAnchor": iso(PERIOD_START_MS), "usagePeriodStart": iso(PERIOD_START_MS),
             "usagePeriodEnd": iso(PERIOD_END_MS)}
    return {
        "type": "entitlements.updated", "messageId": "m-1", "timestamp": iso(at_ms(minute)),
        "customer": {"id": "acme", "name": "Acme"}, "entitlementsUpdatedAt": iso(at_ms(minute)),
        "entitlements": [
            _webhook("sso", "BOOLEAN", None, None, {}),
            _webhook("regions", "NUMBER", "NONE", "region", {"usageLimit": 3}),
            _webhook("calls", "NUMBER", "INCREMENTAL", "call", {"usageLimit": 10, "currentUsage": 4, **month}),
            _webhook("support", "ENUM", None, None, {"enumValues": ["email"]}),
        ],
    }


def used(minute, calls):
    """A webhook body: the usage of one metered feature."""
    return {
        "type": "measurement.reported", "customer": {"id": "acme"}, "feature": {"id": "calls"}, "currentUsage": calls,
        "timestamp": iso(at_ms(minute)), "usagePeriodStart": iso(PERIOD_START_MS), "usagePeriodEnd": iso(PERIOD_END_MS),
    }


def entitlements(minute, regions, limit, calls, calls_minute, support):
    """The same four features as GraphQL spells them, in subscriptions and in the Edge API's answers."""

    def one(ref_id, feature_type, meter_type, unit, own):
        return {
            "__typename": "Entitlement", "isGranted": True, "accessDeniedReason": None, "usageLimit": None,
            "hasUnlimitedUsage": False, "hasSoftLimit": False, "currentUsage": 0, "enumValues": None,
            "entitlementUpdatedAt": iso(at_ms(minute)), "usageUpdatedAt": None, "usagePeriodAnchor": None,
            "usagePeriodStart": None, "usagePeriodEnd": None, "resetPeriod": None, "resetPeriodConfiguration": None,
            "feature": {"__typename": "EntitlementFeature", "refId": ref_id, "displayName": ref_id.title(),
                        "featureType": feature_type, "meterType": meter_type, "featureUnits": unit,
                        "featureUnitsPlural": unit and unit + "s"},
            **own,
        }

    return [
        one("sso", "BOOLEAN", None, None, {}),
        one("regions", "NUMBER", "None", "region", {"usageLimit": regions}),
        one("calls", "NUMBER", "Incremental", "call", {
            "usageLimit": limit, "currentUsage": calls, "usageUpdatedAt": iso(at_ms(calls_minute)), "resetPeriod": "MONTH",
            "resetPeriodConfiguration": {"__typename": "MonthlyResetPeriodConfig", "monthlyAccordingTo": "SubscriptionStart"},
            "usagePeriodAnchor": iso(PERIOD_START_MS), "usagePeriodStart": iso(PERIOD_START_MS),
            "usagePeriodEnd": iso(PERIOD_END_MS)}),
        one("support", "ENUM", None, None, {"enumValues": support}),
    ]


def upgraded(minute, calls_minute):
    """A GraphQL subscription's payload."""
    return {"data": {"entitlementsUpdated": {
        "customerId": "acme", "resourceId": None,
        "entitlements": entitlements(minute, 12, 100, 6, calls_minute, ["email", "phone"])}}}


def purged(minute):
    """An event that names customers whose cached state is to go."""
    return {"type": "SUBSCRIPTIONS_MIGRATED", "timestamp": iso(at_ms(minute)), "customers": [{"customerId": "acme"}]}


def late_state(minute):
    """State as an event wraps it: the type beside, the rest under `payload`."""
    return {"type": "ENTITLEMENTS_UPDATED", "payload": {
        "customerId": "acme", "entitlements": entitlements(minute, 12, 100, 8, minute, ["email", "phone"])}}

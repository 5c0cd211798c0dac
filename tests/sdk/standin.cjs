// Stands in for the modules of SDK 4.55.0 that npm does not have: `node --require ./standin.cjs` lets the SDK and its
// store 1.29.0 run unmodified. Only what reading and refetching need is here, and it decides nothing: an "evaluation"
// hands out what the store found, so a test sees what the vendor's own code read from Redis.
//
// What a test with it shows: names of keys, hits and misses, torn pairs, the migration of the older layout, metadata.
// What it cannot show: how the missing modules key their map, what they do with credits, and whether they grant access.

const Module = require('node:module');

const EntitlementType = { Feature: 'FEATURE', Credit: 'CREDIT' };
const idOf = ({ feature, currency }) => feature?.id ?? currency?.currencyId ?? '';

class CachedEntitlement {
  constructor(calculatedEntitlement, usage) {
    Object.assign(this, { calculatedEntitlement, usage });
  }
  isUsageTrackable() {
    const { type, feature } = this.calculatedEntitlement;
    const isMetered = feature?.featureType === 'NUMBER' && ['Incremental', 'Fluctuating'].includes(feature.meterType);
    return type === EntitlementType.Credit || isMetered;
  }
  getEntitlementQuery() {
    return { type: this.calculatedEntitlement.type, id: idOf(this.calculatedEntitlement) };
  }
}

class EntitlementsMap {
  static getUniqueKey = ({ type, id }) => `${type}:${id}`;
  #entries = new Map();
  static of(entries) {
    const map = new EntitlementsMap();
    entries.forEach((entry) => map.set(entry));
    return map;
  }
  static fromJSON = (stored) =>
    EntitlementsMap.of(
      Object.values(stored).map((it) => new CachedEntitlement(it.calculatedEntitlement, it.usageData)),
    );
  static fromInput = (mapper, list) => EntitlementsMap.of(list.map((it) => mapper.map(it)));
  get = (query) => this.#entries.get(EntitlementsMap.getUniqueKey(query));
  set = (entry) => this.#entries.set(EntitlementsMap.getUniqueKey(entry.getEntitlementQuery()), entry);
  values = () => [...this.#entries.values()];
  toJSON = () =>
    Object.fromEntries(
      this.values().map((it) => [
        it.getEntitlementQuery().id,
        { calculatedEntitlement: it.calculatedEntitlement, usageData: it.usage },
      ]),
    );
}

class EntitlementsFreshener {
  transform = (map) => map;
}

class ExtractWithDependencies {
  constructor(query) {
    this.query = query;
  }
  transform = (map) => EntitlementsMap.of([map.get(this.query)].filter(Boolean));
}

const hit = (name) => (value, accessDeniedReason, entitlementsUpdatedAt) => ({
  [name]: value,
  accessDeniedReason: accessDeniedReason ?? null,
  entitlementsUpdatedAt,
  cacheMiss: false,
});
const miss = (name) => (globalCustomerMissing = false) => ({
  [name]: null,
  accessDeniedReason: null,
  cacheMiss: true,
  globalCustomerMissing,
});
const mapper = (name) => ({ cacheHit: hit(name), cacheMiss: miss(name) });
const mapDate = (date) => (date ? new Date(date) : undefined);

// Without a Redis, and without the vendor's websocket, the SDK asks the Edge API for each question, whatever this holds.
class InMemoryCacheService {
  constructor(_store, _instrumentation, mapper) {
    this.mapper = mapper;
  }
  waitForInitialization = async () => {};
  clearCache() {}
  getCustomerEntitlement = () => mapper('entitlement').cacheMiss();
  getCustomerEntitlements = () => mapper('entitlements').cacheMiss();
  setCustomer = ({ entitlements }) => EntitlementsMap.fromInput(this.mapper, entitlements);
}

const found = (entitlement, accessDeniedReason) => ({
  found: entitlement?.calculatedEntitlement ?? null,
  usage: entitlement?.usage ?? null,
  accessDeniedReason: accessDeniedReason ?? null,
});
class EntitlementEvaluator {
  evaluateBooleanEntitlement = found;
  evaluateNumericEntitlement = found;
  evaluateMeteredEntitlement = found;
  evaluateEnumEntitlement = found;
  evaluateCreditEntitlement = found;
  evaluateEntitlement = (_query, entitlement, reason) => found(entitlement, reason);
}

// As an Edge API answers: features and credits, told apart by `__typename`.
class ApiCacheMapper {
  map({ __typename, feature, currency, usageLimit, currentUsage, usageUpdatedAt, accessDeniedReason }) {
    const type = __typename === 'CreditEntitlement' ? EntitlementType.Credit : EntitlementType.Feature;
    const named = feature && { id: feature.refId, featureType: feature.featureType, meterType: feature.meterType };
    const usage = { currentUsage, usageUpdatedAt: mapDate(usageUpdatedAt)?.getTime() };
    return new CachedEntitlement({ type, feature: named, currency, usageLimit, accessDeniedReason }, usage);
  }
}

const standIns = {
  '@stigg/cache-core': () => ({
    CachedEntitlement,
    DATE_IN_FAR_PAST: new Date(0),
    EntitlementType,
    EntitlementsFreshener,
    EntitlementsMap,
    ExtractWithDependencies,
    InMemoryCacheService,
    ReuseOngoingExecution: () => (_target, _name, descriptor) => descriptor,
    entitlementResponseMapper: mapper('entitlement'),
    entitlementsResponseMapper: mapper('entitlements'),
    isFeatureEntitlement: ({ __typename }) => __typename !== 'CreditEntitlement',
    isValidDate: (date) => !Number.isNaN(new Date(date).getTime()),
    mapAccessDeniedReason: (reason) => reason,
    mapDate,
  }),
  '@stigg/sdk-core': () => ({
    ApiCacheMapper,
    EntitlementEvaluator,
    ModelMapper: class {},
    isFeatureLikeEntitlementResult: () => true,
    buildCreditFallbackEntitlement: () => ({ fallback: true }),
    getEntitlementV2FallbackFromOptions: () => ({ fallback: true }),
    getFeatureFallbackFromOptions: () => ({ fallback: true }),
    mapGetEntitlementsFallback: () => [],
  }),
  // Of the version that SDK 3.95.0 brings, which has what is used here but for two names.
  '@stigg/api-client-js': () => ({
    ...load(require.resolve('@stigg/api-client-js/src/generated/sdk'), module),
    isFeatureEntitlementFragment: ({ __typename }) => __typename !== 'CreditEntitlement',
    GetEntitlementsStateDocument: {},
  }),
};

const load = (id, parent) => original.call(Module, id, parent, false);
const original = Module._load;
const loaded = {};
Module._load = function (id, ...rest) {
  if (!Object.hasOwn(standIns, id)) {
    return original.call(this, id, ...rest);
  }
  return (loaded[id] ??= standIns[id]());
};

//! Knows the hosts of AWS in every partition; no other module does.

/// The host suffixes of one partition, and the prefixes of its regions.
struct Partition {
    regions: &'static [&'static str],
    suffix: &'static str,
    dual_stack: &'static str,
}

/// The partitions of the AWS SDKs' endpoint rules. The first one takes every region that is in no other.
const PARTITIONS: [Partition; 8] = [
    Partition {
        regions: &[],
        suffix: "amazonaws.com",
        dual_stack: "api.aws",
    },
    Partition {
        regions: &["cn-"],
        suffix: "amazonaws.com.cn",
        dual_stack: "api.amazonwebservices.com.cn",
    },
    Partition {
        regions: &["us-gov-"],
        suffix: "amazonaws.com",
        dual_stack: "api.aws",
    },
    Partition {
        regions: &["us-iso-"],
        suffix: "c2s.ic.gov",
        dual_stack: "api.aws.ic.gov",
    },
    Partition {
        regions: &["us-isob-"],
        suffix: "sc2s.sgov.gov",
        dual_stack: "api.aws.scloud",
    },
    Partition {
        regions: &["eu-isoe-"],
        suffix: "cloud.adc-e.uk",
        dual_stack: "api.cloud-aws.adc-e.uk",
    },
    Partition {
        regions: &["us-isof-", "eu-isof-"],
        suffix: "csp.hci.ic.gov",
        dual_stack: "api.aws.hci.ic.gov",
    },
    Partition {
        regions: &["eusc-"],
        suffix: "amazonaws.eu",
        dual_stack: "api.amazonwebservices.eu",
    },
];

/// Normalizes a host name: lower case, and no dot at the end.
fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Returns the part before the suffix of a partition.
fn name(host: &str) -> Option<&str> {
    let suffixes = PARTITIONS.iter().flat_map(|it| [it.suffix, it.dual_stack]);
    suffixes
        .filter_map(|suffix| host.strip_suffix(suffix)?.strip_suffix('.'))
        .next()
}

/// Returns whether a host belongs to AWS.
pub fn is_of_aws(host: &str) -> bool {
    name(&plain(host)).is_some()
}

/// Returns the region of a host of SQS or STS: `sqs.<region>`, `sqs-fips.<region>`, a VPC endpoint
/// (`vpce-….sqs.<region>.vpce`), or one of the old names, `<region>.queue` and `queue`.
pub fn region(host: &str) -> Option<String> {
    let host = plain(host);
    let labels: Vec<&str> = name(&host)?.split('.').collect();
    let labels = labels.strip_suffix(&["vpce"]).unwrap_or(&labels);
    let region = match labels {
        ["queue"] => "us-east-1",
        [region, "queue"] => region,
        [.., "sqs" | "sqs-fips" | "sts" | "sts-fips", region] => region,
        _ => return None,
    };
    Some(region.to_owned())
}

/// Returns whether a host is the public one of SQS in a region. A VPC endpoint is not.
pub fn is_public(host: &str) -> bool {
    let host = plain(host);
    let labels: Option<Vec<&str>> = name(&host).map(|name| name.split('.').collect());
    matches!(
        labels.as_deref(),
        Some(["queue"] | [_, "queue"] | ["sqs" | "sqs-fips", _])
    )
}

/// Returns the public host of SQS in a region, FIPS or dual-stack if requested.
pub fn sqs(region: &str, fips: bool, dual_stack: bool) -> String {
    let [standard, others @ ..] = &PARTITIONS;
    let partition = others
        .iter()
        .find(|it| it.regions.iter().any(|start| region.starts_with(start)))
        .unwrap_or(standard);
    // All endpoints of GovCloud comply with FIPS, under their usual names.
    let service = match fips && !region.starts_with("us-gov-") {
        true => "sqs-fips",
        false => "sqs",
    };
    let suffix = match dual_stack {
        true => partition.dual_stack,
        false => partition.suffix,
    };
    format!("{service}.{region}.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_from_every_form_of_host() {
        for (host, found, public) in [
            ("sqs.eu-west-1.amazonaws.com", "eu-west-1", true),
            ("SQS.EU-West-1.amazonaws.com.", "eu-west-1", true),
            ("sqs-fips.us-east-2.amazonaws.com", "us-east-2", true),
            ("sqs.us-gov-west-1.amazonaws.com", "us-gov-west-1", true),
            ("sqs.us-west-2.api.aws", "us-west-2", true),
            ("sqs-fips.us-west-2.api.aws", "us-west-2", true),
            ("us-west-2.queue.amazonaws.com", "us-west-2", true),
            ("queue.amazonaws.com", "us-east-1", true),
            ("sqs.cn-north-1.amazonaws.com.cn", "cn-north-1", true),
            ("cn-north-1.queue.amazonaws.com.cn", "cn-north-1", true),
            (
                "sqs.cn-north-1.api.amazonwebservices.com.cn",
                "cn-north-1",
                true,
            ),
            ("sqs.us-iso-east-1.c2s.ic.gov", "us-iso-east-1", true),
            ("sqs.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1", true),
            ("sqs.eu-isoe-west-1.cloud.adc-e.uk", "eu-isoe-west-1", true),
            (
                "sqs.us-isof-south-1.csp.hci.ic.gov",
                "us-isof-south-1",
                true,
            ),
            ("sqs.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1", true),
            (
                "vpce-0a1b-4e5f.sqs.us-west-2.vpce.amazonaws.com",
                "us-west-2",
                false,
            ),
            (
                "vpce-0a1b-4e5f-us-west-2a.sqs.us-west-2.vpce.amazonaws.com",
                "us-west-2",
                false,
            ),
            (
                "vpce-1.sqs.cn-north-1.vpce.amazonaws.com.cn",
                "cn-north-1",
                false,
            ),
            (
                "vpce-1.sqs-fips.us-east-1.vpce.amazonaws.com",
                "us-east-1",
                false,
            ),
            ("sts.eu-west-1.amazonaws.com", "eu-west-1", false),
        ] {
            assert_eq!(region(host).as_deref(), Some(found), "{host}");
            assert!(is_of_aws(host), "{host}");
            assert_eq!(is_public(host), public, "{host}");
        }
        for host in ["sts.amazonaws.com", "s3.amazonaws.com"] {
            assert!(is_of_aws(host) && region(host).is_none(), "{host}");
        }
        for host in [
            "127.0.0.1",
            "localhost",
            "sqs.us-east-1.amazonaws.com.example.com",
            "sqs.us-east-1.notamazonaws.com",
            "sqs.us-east-1.localhost.localstack.cloud",
            "amazonaws.com",
        ] {
            assert!(!is_of_aws(host) && region(host).is_none(), "{host}");
        }
    }

    #[test]
    fn a_host_is_made_for_each_kind_and_partition() {
        for (region, fips, dual, host) in [
            ("us-east-1", false, false, "sqs.us-east-1.amazonaws.com"),
            ("us-east-1", true, false, "sqs-fips.us-east-1.amazonaws.com"),
            ("us-east-1", false, true, "sqs.us-east-1.api.aws"),
            ("us-east-1", true, true, "sqs-fips.us-east-1.api.aws"),
            (
                "us-gov-west-1",
                true,
                false,
                "sqs.us-gov-west-1.amazonaws.com",
            ),
            (
                "cn-north-1",
                false,
                true,
                "sqs.cn-north-1.api.amazonwebservices.com.cn",
            ),
            (
                "eusc-de-east-1",
                false,
                false,
                "sqs.eusc-de-east-1.amazonaws.eu",
            ),
        ] {
            assert_eq!(sqs(region, fips, dual), host);
            assert_eq!(super::region(host).as_deref(), Some(region), "{host}");
        }
    }
}

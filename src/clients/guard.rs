//! Where a request of ours must not go, whoever has configured its URL: to what a cloud tells only to its own machines.
//!
//! Addresses are looked at where the connection is made: a name that is looked up twice may be answered differently.
//! Private networks and this machine are allowed, since only the operator says where we call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use url::{Host, Url};

/// Outside the ranges that are closed anyway: AWS, its containers, Google Cloud, Scaleway, Alibaba, Oracle and Azure.
const METADATA: [IpAddr; 7] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// An address that nothing is asked at.
#[derive(Debug, thiserror::Error)]
#[error("{0} is the address of a metadata server, or of nobody in particular: it is never asked")]
pub(crate) struct Forbidden(IpAddr);

/// Finds the addresses of names by the system's resolver, and no forbidden ones.
#[derive(Clone)]
pub(crate) struct Guard(Arc<dyn Resolve>);

impl Guard {
    /// By the system's resolver.
    pub(crate) fn new() -> Self {
        Self(Arc::new(System))
    }
}

/// A client that asks no forbidden name and follows nobody elsewhere. URLs with an address are for [`check_url`].
pub(crate) fn guarded(guard: Guard) -> ClientBuilder {
    Client::builder().redirect(Policy::none()).dns_resolver(Arc::new(guard))
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let asked = self.0.resolve(name);
        Box::pin(async move {
            let (mut allowed, mut refused) = (Vec::new(), None);
            for address in asked.await? {
                match check(address.ip()) {
                    Ok(()) => allowed.push(address),
                    // A neighbour may have a link-local address beside others.
                    Err(forbidden) => refused = Some(forbidden),
                }
            }
            match refused {
                Some(forbidden) if allowed.is_empty() => Err(forbidden.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// A URL with an address in it: no resolver is asked for such a one. In which base its numbers are written is known to
/// the URL's parser.
pub(crate) fn check_url(url: &Url) -> Result<(), Forbidden> {
    match url.host() {
        Some(Host::Ipv4(address)) => check(address.into()),
        Some(Host::Ipv6(address)) => check(address.into()),
        Some(Host::Domain(_)) | None => Ok(()),
    }
}

fn check(address: IpAddr) -> Result<(), Forbidden> {
    let forbidden = match meant(address) {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_multicast() || v4.is_broadcast(),
        // The second range of NAT64 holds an address in places of each network's choice.
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.is_multicast() || v6.segments()[..3] == [0x64, 0xff9b, 1]
        }
    };
    if forbidden || METADATA.contains(&meant(address)) { Err(Forbidden(address)) } else { Ok(()) }
}

/// The address that a packet ends up at: IPv6 has several ways to write one of IPv4.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let segments = v6.segments();
    let inner = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match segments {
        // Compatible, but for the loopback address and none; mapped, translated, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 => inner(high, low),
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => inner(high, low),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn no_spelling_of_the_metadata_servers_address_gets_through_and_private_networks_do() {
        for host in [
            "169.254.169.254",
            "169.254.170.2",
            "2852039166",
            "0xA9FEA9FE",
            "0xa9.254.0251.0xfe",
            "169.254.43518",
            "%31%36%39.254.169.254",
            "①⑥⑨.254.169.254",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[::169.254.169.254]",
            "[::ffff:0:169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[64:ff9b:1::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            "[fe80::1]",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "[fd00:42::42]",
            "[64:ff9b:1:a9fe:a9:fe00::]",
            "224.0.0.1",
            "255.255.255.255",
            "[ff02::1]",
        ] {
            let url = Url::parse(&format!("http://{host}/latest/meta-data/")).expect(host);
            assert!(check_url(&url).is_err(), "{host}: {url}");
        }
        for host in ["10.0.0.7", "127.0.0.1", "192.168.1.1", "172.16.0.1", "[::1]", "[fd12::1]", "1.1.1.1"] {
            let url = Url::parse(&format!("http://{host}/")).expect(host);
            assert!(check_url(&url).is_ok(), "{host}");
        }
    }

    /// Says another thing each time it is asked.
    #[derive(Default)]
    struct Fickle(AtomicUsize);

    impl Resolve for Fickle {
        fn resolve(&self, _: Name) -> Resolving {
            let answers: &[&str] = match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => &["127.0.0.1"],
                1 => &["169.254.169.254"],
                2 => &["::ffff:169.254.169.254"],
                3 => &["fd00:ec2::254"],
                _ => &["fe80::1", "169.254.169.254", "127.0.0.1"],
            };
            let addresses: Vec<SocketAddr> =
                answers.iter().map(|answer| SocketAddr::new(answer.parse().unwrap(), 0)).collect();
            Box::pin(async move { Ok(Box::new(addresses.into_iter()) as Addrs) })
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_the_metadata_server_the_second_time_is_not_followed_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://metadata.example.com:{}/", listener.local_addr().unwrap().port());
        let server = tokio::spawn(async move { drop(listener.accept().await) });
        let guard = Guard(Arc::new(Fickle::default()));
        let client = guarded(guard).no_proxy().build().unwrap();
        let ask = async || crate::telemetry::chain(&client.get(&url).send().await.expect_err("no answer"));
        let error = ask().await;
        server.await.expect("the first time it is asked");
        assert!(!error.contains("never asked"), "{error}");
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"] {
            let error = ask().await;
            assert!(error.contains(&format!("{address} is the address of a metadata server")), "{error}");
        }
        let error = ask().await;
        assert!(!error.contains("never asked"), "one address of several is allowed: {error}");
    }

    #[tokio::test]
    async fn names_are_found_by_the_systems_resolver() {
        let found = Guard::new().resolve("localhost".parse().unwrap()).await.expect("this machine");
        assert!(found.into_iter().all(|address| address.ip().is_loopback()));
    }
}

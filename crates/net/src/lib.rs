//! The one gate out: everything the relay dials goes through here.
//!
//! `address` says which addresses are not public, `rules` what the operator opened, `target` parses and judges a URL,
//! `resolve` asks the DNS, `shortage` knows when it is the relay that lacks something, `dial` connects to vetted addresses only, `tls` holds the certificate rules, `socket` joins the two,
//! `client` delivers webhooks, `peers` is who answers where there is no wire, `fetch` reads upstreams and `token` asks for bearer tokens. Nothing in here knows subscriptions, storage or signatures, and nothing outside
//! of here opens a connection.

pub mod address;
pub mod client;
pub mod dial;
pub mod fetch;
pub mod peers;
pub mod resolve;
pub mod rules;
pub mod shortage;
pub mod socket;
pub mod target;
pub mod tls;
pub mod token;

pub use rules::{AllowEntry, EgressRules, ResolverChoice};
pub use target::{Target, TargetError};

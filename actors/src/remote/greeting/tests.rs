use super::*;
use tokio::io::{duplex, join};

#[tokio::test]
async fn a_connection_that_breaks_while_something_is_written_is_no_refusal() {
    // Nothing comes, and nothing can be said.
    let ((reader, _far), (writer, _)) = (duplex(100), duplex(100));
    let mut link = Link::new(join(reader, writer), 1 << 20);
    link.outbox.send(&Message::Heartbeat, &[]);
    let Err(GreetingError::Wire(WireError::Io(error))) = link.hear().await else {
        panic!("an executor tries again after this one");
    };
    assert_eq!(error.to_string(), "its connection broke: broken pipe");
}

#[tokio::test]
async fn the_end_of_a_connection_is_no_refusal() {
    let (near, far) = duplex(100);
    drop(far);
    let mut link = Link::new(near, 1 << 20);
    assert!(matches!(link.hear().await, Err(GreetingError::Closed)));
}

#[test]
fn the_name_that_the_driver_must_have_is_the_host_unless_it_is_set() {
    let tls = |server_name: Option<&str>| {
        let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(tokio_rustls::rustls::RootCertStore::empty())
            .with_no_client_auth();
        ClientTls { config: config.into(), server_name: server_name.map(str::to_owned) }
    };
    for (address, set, expected) in [
        ("driver.local:7077", None, "driver.local"),
        ("10.0.0.1:7077", None, "10.0.0.1"),
        ("[::1]:7077", None, "::1"),
        ("10.0.0.1:7077", Some("driver.local"), "driver.local"),
    ] {
        let name = server_name(address, &tls(set)).unwrap();
        assert_eq!(name.to_str(), expected, "{address}");
    }
    let error = server_name("x:1", &tls(Some("no name"))).unwrap_err().to_string();
    assert!(error.starts_with("'no name' is no name of a server: "), "{error}");
}

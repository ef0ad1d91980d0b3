//! Who may join a driver, and what everybody else can do to it.

mod support;

use phalanx_actors::remote::wire::{ExecutorHello, Message, PROTOCOL_VERSION, Welcome};
use phalanx_actors::remote::{
    Client, ClientTls, ExecutorEnd, GreetingError, ListenError, Proof, TlsFiles, Token,
};
use phalanx_actors::testing::Peer;
use phalanx_protocol::{ExecutorId, ExecutorResources, Incarnation, StageId, StageKind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::certificates::{Ca, Folder};
use support::raw::{LAST, Raw, challenge, frame, listen, packet};
use support::{Driver, config, hello, named, spec, start_process, system, within};
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

async fn dial(
    address: &str,
    hello: ExecutorHello,
    token: Option<&Token>,
    tls: Option<&ClientTls>,
) -> Result<(Peer, Welcome), GreetingError> {
    within("a greeting", Peer::dial(address, hello, token, tls)).await
}

/// Why it was not welcome.
async fn refusal(
    address: &str,
    hello: ExecutorHello,
    token: Option<&Token>,
    tls: Option<&ClientTls>,
) -> String {
    match dial(address, hello, token, tls).await {
        Ok((_, welcome)) => panic!("{welcome:?}"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn who_has_the_token_is_welcome_and_learns_what_the_driver_wants() {
    let token = Token::random().unwrap();
    let mut driver = Driver::with(|config| config.token = Some(token.clone()));
    let (_peer, welcome) = dial(&driver.address, hello("a"), Some(&token), None).await.unwrap();
    assert!(welcome.proof.is_some(), "the driver proves itself");
    let config = config();
    assert_eq!(welcome.heartbeat_interval, config.heartbeat_interval);
    assert_eq!(welcome.heartbeat_timeout, config.heartbeat_timeout);
    assert_eq!(welcome.max_payload, config.max_payload);
    let (executor, incarnation) = (ExecutorId(0), Incarnation(0));
    assert_eq!(welcome.executor, Some((executor, incarnation)));
    assert_eq!(driver.joined().await, ("a".to_owned(), executor, incarnation));
    let mut client = Client::connect(&driver.address, Some(&token), None).await.unwrap();
    assert_eq!(client.status().await.unwrap().names, [(executor, "a".into())]);
    driver.shutdown().await;
}

#[tokio::test]
async fn who_has_another_token_or_none_is_refused_executor_or_client() {
    let token = Token::random().unwrap();
    let mut driver = Driver::with(|config| config.token = Some(token.clone()));
    let other = Token::random().unwrap();
    let wrong = "the driver refuses: the token is not the driver's";
    assert_eq!(refusal(&driver.address, hello("a"), Some(&other), None).await, wrong);
    let none = "the driver refuses: no token was given: set PHALANX_TOKEN or PHALANX_TOKEN_FILE";
    assert_eq!(refusal(&driver.address, hello("a"), None, None).await, none);
    let client = Client::connect(&driver.address, None, None).await;
    assert_eq!(client.err().unwrap().to_string(), none);
    // They were refused before they were asked who they are.
    assert_eq!(driver.event_now(), None);
    let (_peer, _) = dial(&driver.address, hello("a"), Some(&token), None).await.unwrap();
    driver.joined().await;
    driver.shutdown().await;
}

const NO_TOKEN: &str = "whoever answers at the driver's address does not have the token";

#[tokio::test]
async fn a_dialer_refuses_a_driver_that_has_not_the_token() {
    let driver = Driver::start();
    let token = Token::random().unwrap();
    assert_eq!(refusal(&driver.address, hello("a"), Some(&token), None).await, NO_TOKEN);
    driver.shutdown().await;
}

#[tokio::test]
async fn the_dialers_own_proof_is_no_proof_of_the_driver() {
    let token = Token::random().unwrap();
    let (listener, address) = listen().await;
    let reflect = async {
        let (mut raw, theirs) = Raw::challenged(&listener).await;
        let proof: Option<Proof> = theirs.proof;
        assert!(proof.is_some());
        let second = Duration::from_secs(1);
        let welcome = Welcome {
            proof,
            heartbeat_interval: second,
            heartbeat_timeout: second,
            max_payload: 1,
            executor: Some((ExecutorId(0), Incarnation(0))),
        };
        raw.say(&Message::Welcome(welcome)).await;
    };
    let dialled = refusal(&address, hello("a"), Some(&token), None);
    assert_eq!(tokio::join!(reflect, dialled).1, NO_TOKEN);
}

#[tokio::test]
async fn another_program_is_refused_with_both_programs_named() {
    let mut driver = Driver::start();
    let (mut application, mut version, mut code, mut slots) =
        (hello("a"), hello("a"), hello("a"), hello("a"));
    application.program.application = "other".to_owned();
    version.program.version = "2.0.0".to_owned();
    code.program.code.push("g(()) -> u8".to_owned());
    slots.resources = ExecutorResources::new(0);
    let refused = [
        (
            application,
            "it is 'other 1.0.0', the driver is 'unit 1.0.0': both must be the same program",
        ),
        (version, "it is 'unit 2.0.0', the driver is 'unit 1.0.0': both must be the same program"),
        (
            code,
            "it can run [f(u32) -> u32, g(()) -> u8], the driver wants [f(u32) -> u32]: both must \
             be the same program",
        ),
        (slots, "it has 0 slots, allowed is 1 or more (PHALANX_SLOTS)"),
    ];
    for (hello, text) in refused {
        let expected = format!("the driver refuses: {text}");
        assert_eq!(refusal(&driver.address, hello, None, None).await, expected);
    }
    assert_eq!(driver.event_now(), None);
    driver.peer("a").await;
    driver.shutdown().await;
}

const OTHER_VERSION: &str = "its protocol has version 3, this one's has 2: driver, executors and \
                             clients must be of the same build";

#[tokio::test]
async fn a_driver_refuses_another_protocol_and_says_why() {
    assert_eq!(PROTOCOL_VERSION, 2);
    let mut driver = Driver::start();
    for (magic, version, text) in [
        (*b"phalanx\0", 3, OTHER_VERSION),
        (*b"falanx\0\0", 2, "it does not speak phalanx's protocol"),
    ] {
        let mut raw = Raw::dial(&driver.address).await;
        let mut answer = raw.hello(hello("a")).await;
        (answer.magic, answer.version) = (magic, version);
        raw.say(&Message::Hello(answer)).await;
        assert_eq!(
            raw.heard().await,
            Some(Message::Goodbye { reason: text.to_owned(), is_done: false })
        );
        assert_eq!(raw.heard().await, None, "and that was all");
    }
    assert_eq!(driver.event_now(), None);
    driver.peer("a").await;
    driver.shutdown().await;
}

#[tokio::test]
async fn a_dialer_refuses_another_protocol_and_hears_why_it_is_refused() {
    let goodbye = Message::Goodbye { reason: "not today".to_owned(), is_done: false };
    let answers = [
        (challenge(*b"phalanx\0", 3), OTHER_VERSION),
        (challenge(*b"falanx\0\0", 2), "it does not speak phalanx's protocol"),
        (frame(LAST, &packet(&goodbye, &[])), "the driver refuses: not today"),
        (
            frame(LAST, &packet(&Message::Heartbeat, &[])),
            "it said Heartbeat before it was its turn",
        ),
        (Vec::new(), "the other side closed the connection"),
    ];
    let (listener, address) = listen().await;
    for (answer, text) in answers {
        let play = async { Raw::accept(&listener).await.write(&answer).await };
        let dialled = refusal(&address, hello("a"), None, None);
        assert_eq!(tokio::join!(play, dialled).1, text);
    }
    let play = async {
        let (mut raw, _) = Raw::challenged(&listener).await;
        raw.say(&goodbye).await;
    };
    let dialled = refusal(&address, hello("a"), None, None);
    assert_eq!(tokio::join!(play, dialled).1, "the driver refuses: not today");
}

#[tokio::test]
async fn a_greeting_that_breaks_is_tried_again_and_is_no_refusal() {
    let (listener, address) = listen().await;
    let process = start_process(&address, |_| {});
    for _ in 0..5 {
        // The challenge arrives, and what answers it cannot be written.
        let mut raw = Raw::accept(&listener).await;
        raw.write(&challenge(*b"phalanx\0", 2)).await;
        raw.stream.set_zero_linger().unwrap();
    }
    let minute = Duration::from_secs(60);
    let (mut raw, _) = Raw::welcomed(&listener, (minute, minute)).await;
    raw.say(&Message::Goodbye { reason: "enough".to_owned(), is_done: true }).await;
    let end = process.end().await;
    assert!(matches!(&end, ExecutorEnd::Goodbye(reason) if reason == "enough"), "{end}");
}

#[tokio::test]
async fn nobody_else_listens_to_the_network_without_protection() {
    let system = system();
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let mut open = config();
    open.address = everywhere;
    let error = system.listen(open.clone()).unwrap_err();
    assert!(matches!(error, ListenError::Unprotected(address) if address == everywhere), "{error}");
    assert!(error.to_string().contains("neither a token nor TLS is set"), "{error}");
    open.token = Some(Token::random().unwrap());
    let address = system.listen(open).unwrap();
    let error = system.listen(config()).unwrap_err();
    assert!(matches!(error, ListenError::Twice(first) if first == address), "{error}");
    system.shutdown(Duration::from_secs(1)).await;
    let error = system.listen(config()).unwrap_err();
    assert!(matches!(error, ListenError::Ended), "{error}");
}

/// The certificates of a driver and of executors, good and bad.
struct Identities {
    folder: Folder,
    ca: Ca,
    other: Ca,
}

impl Identities {
    fn new() -> Self {
        let folder = Folder::new();
        let (ca, other) = (Ca::new(&folder, "ca"), Ca::new(&folder, "other"));
        Identities { folder, ca, other }
    }

    fn driver(&self) -> Driver {
        let tls = self.ca.sign(&self.folder, "driver").server().unwrap();
        Driver::with(|config| config.tls = Some(tls))
    }

    fn executor(&self) -> ClientTls {
        self.ca.sign(&self.folder, "executor").client(Some("localhost".to_owned())).unwrap()
    }
}

#[tokio::test]
async fn certificates_of_one_ca_are_good_on_both_sides_and_carry_everything() {
    let identities = Identities::new();
    let mut driver = identities.driver();
    let tls = identities.executor();
    let process = start_process(&driver.address, |process| process.tls = Some(tls.clone()));
    driver.joined().await;
    let (mut peer, _) = dial(&driver.address, hello("a"), None, Some(&tls)).await.unwrap();
    driver.joined().await;
    let inputs: Vec<_> = (0..4).map(|part| vec![part; 3 << 20].into()).collect();
    let stage = driver.submit(1, spec(StageKind::Plain, 4), named(inputs.clone()));
    let Some((Message::Launch { launch, .. }, payloads)) = support::heard(&mut peer).await else {
        panic!("the peer has two of the four slots");
    };
    for (task, input) in launch.tasks.iter().zip(&payloads[1..]) {
        assert!(*input == inputs[task.partition.0 as usize], "as it was sent");
    }
    let mut client = Client::connect(&driver.address, None, Some(&tls)).await.unwrap();
    assert!(client.cancel(StageId(1), "seen").await.unwrap());
    assert_eq!(stage.failure().await, "was cancelled: seen");
    driver.shutdown().await;
    let end = process.end().await;
    assert!(matches!(&end, ExecutorEnd::Goodbye(reason) if reason == "the driver has ended"));
}

const LOCALHOST: Option<&str> = Some("localhost");

async fn tls_refusal(driver: &Driver, files: &TlsFiles, server_name: Option<&str>) -> String {
    let tls = files.client(server_name.map(str::to_owned)).unwrap();
    refusal(&driver.address, hello("a"), None, Some(&tls)).await
}

/// It goes on as before: who may join does.
async fn assert_welcome(driver: &mut Driver, identities: &Identities) {
    assert_eq!(driver.event_now(), None, "nobody has joined so far");
    let tls = identities.executor();
    let (_peer, _) = dial(&driver.address, hello("good"), None, Some(&tls)).await.unwrap();
    driver.joined().await;
}

#[tokio::test]
async fn a_certificate_of_another_ca_or_of_the_past_is_refused_by_the_driver() {
    let identities = Identities::new();
    let Identities { folder, ca, other } = &identities;
    let mut driver = identities.driver();
    let trusts = |files: TlsFiles| TlsFiles { ca: ca.sign(folder, "any").ca, ..files };
    let strange = trusts(other.sign(folder, "strange"));
    let error = tls_refusal(&driver, &strange, LOCALHOST).await;
    assert_eq!(error, "received fatal alert: UnknownCA");
    let expired = ca.sign_expired(folder, "expired");
    let error = tls_refusal(&driver, &expired, LOCALHOST).await;
    assert_eq!(error, "received fatal alert: CertificateExpired");
    assert_welcome(&mut driver, &identities).await;
    driver.shutdown().await;
}

#[tokio::test]
async fn a_driver_of_another_ca_of_the_past_or_of_another_name_is_refused_by_the_executor() {
    let identities = Identities::new();
    let Identities { folder, ca, other } = &identities;
    let files = ca.sign(folder, "executor");
    let with = |files: TlsFiles| {
        let tls = TlsFiles { ca: files.ca.clone(), ..files }.server().unwrap();
        Driver::with(|config| config.tls = Some(tls))
    };
    let strange = with(other.sign(folder, "strange"));
    let error = tls_refusal(&strange, &files, LOCALHOST).await;
    assert_eq!(error, "invalid peer certificate: UnknownIssuer");
    let expired = with(ca.sign_expired(folder, "expired"));
    let error = tls_refusal(&expired, &files, LOCALHOST).await;
    assert!(error.starts_with("invalid peer certificate: certificate expired"), "{error}");
    let mut driver = identities.driver();
    for (name, text) in [(Some("elsewhere"), "\"elsewhere\""), (None, "127.0.0.1")] {
        let error = tls_refusal(&driver, &files, name).await;
        assert!(error.contains("certificate not valid for name"), "{error}");
        assert!(error.contains(text) && error.contains("localhost"), "{error}");
    }
    assert_welcome(&mut driver, &identities).await;
    for driver in [strange, expired, driver] {
        driver.shutdown().await;
    }
}

#[tokio::test]
async fn who_shows_no_certificate_is_refused() {
    let identities = Identities::new();
    let mut driver = identities.driver();
    let mut roots = RootCertStore::empty();
    let ca = identities.ca.sign(&identities.folder, "any").ca;
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let anonymous = builder.with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(anonymous));
    let raw = Raw::dial(&driver.address).await;
    let dialled = connector.connect("localhost".try_into().unwrap(), raw.stream);
    let mut stream = within("a handshake", dialled).await.unwrap();
    let error = within("an answer", stream.read_u8()).await.unwrap_err().to_string();
    assert_eq!(error, "received fatal alert: CertificateRequired");
    assert_welcome(&mut driver, &identities).await;
    driver.shutdown().await;
}

#[tokio::test]
async fn who_speaks_in_the_open_is_refused_and_waited_for_no_longer_than_five_seconds() {
    let identities = Identities::new();
    let mut driver = identities.driver();
    let mut raw = Raw::dial(&driver.address).await;
    raw.write(&frame(LAST, &packet(&Message::Heartbeat, &[]))).await;
    let mut answer = Vec::new();
    within("the end", raw.stream.read_to_end(&mut answer)).await.unwrap_or_default();
    assert!(!answer.starts_with(&[0]), "an alert of TLS at most: {answer:?}");
    // Both wait for the other to begin, and either may be the first to give up.
    let started = Instant::now();
    let error = refusal(&driver.address, hello("a"), None, None).await;
    let texts =
        ["the other side did not say who it is within 5s", "the other side closed the connection"];
    assert!(texts.contains(&&*error), "{error}");
    assert!(started.elapsed() > Duration::from_secs(4), "{:?}", started.elapsed());
    assert_welcome(&mut driver, &identities).await;
    driver.shutdown().await;
    let mut open = Driver::start();
    let error = tls_refusal(&open, &identities.ca.sign(&identities.folder, "any"), LOCALHOST).await;
    assert!(error.starts_with("received corrupt message"), "{error}");
    open.peer("a").await;
    open.shutdown().await;
}

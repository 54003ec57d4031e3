use super::*;

struct Ends {
    network: Network,
    author: NodeKey,
    secret: NodeSecret,
    destination: NodeKey,
}

impl Ends {
    fn new() -> Ends {
        let network = Network { chain_id: "localnet".into(), contract: "por.test".parse().expect("account") };
        let secret = NodeSecret::from_seed(&[2; 32]);
        let author = NodeSecret::from_seed(&[1; 32]).public();
        Ends { network, author, destination: secret.public(), secret }
    }

    fn context(&self) -> Context<'_> {
        let Ends { network, author, destination, .. } = self;
        Context { network, author, destination, app: "sealed/echo" }
    }

    fn seal(&self, body: &[u8]) -> (Bytes, ResponseOpener) {
        seal_request(&self.context(), body).expect("sealed")
    }

    fn open(&self, sealed: &[u8]) -> Result<(Bytes, ResponseSealer), SealError> {
        open_request(&self.context(), &self.secret, sealed)
    }
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 / 7) as u8).collect()
}

fn error<T>(result: Result<T, SealError>) -> Option<SealError> {
    result.err()
}

#[test]
fn bodies_of_all_lengths_go_there_and_back() {
    let ends = Ends::new();
    for len in [0, 1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5] {
        let question = body(len);
        let (sealed, opener) = ends.seal(&question);
        assert_eq!(sealed.len() as u64, sealed_len(len as u64));
        assert_eq!(open_len(sealed.len() as u64), Some(len as u64));
        let (opened, sealer) = ends.open(&sealed).expect("opened");
        assert_eq!(opened, question);
        let answer = sealer.seal(&question).expect("sealed");
        assert_eq!(answer.len(), sealed.len());
        assert_ne!(answer, sealed);
        assert_eq!(opener.open(&answer).expect("opened"), question);
        // A second answer after a restart is another one, and opens too.
        let again = sealer.seal(&question).expect("sealed");
        assert_ne!(again, answer);
        assert_eq!(opener.open(&again).expect("opened"), question);
    }
}

#[test]
fn the_longest_open_body_fits_and_the_next_does_not() {
    let chunk = (CHUNK + TAG) as u64;
    assert_eq!(open_len((HEADER + TAG) as u64 - 1), None);
    for sealed in (49..200).chain(chunk + 20..chunk + 80).chain(2 * chunk + 20..2 * chunk + 60) {
        let open = open_len(sealed).expect("fits");
        assert!(sealed_len(open) <= sealed && sealed_len(open + 1) > sealed, "{sealed}");
    }
    assert!(sealed_len(u64::MAX) == u64::MAX);
}

#[test]
fn a_changed_byte_anywhere_is_found() {
    let ends = Ends::new();
    let (sealed, opener) = ends.seal(&body(40));
    let (_, sealer) = ends.open(&sealed).expect("opened");
    let answer = sealer.seal(&body(40)).expect("sealed");
    for at in 0..sealed.len() {
        let mut changed = sealed.to_vec();
        changed[at] ^= 0x10;
        assert!(ends.open(&changed).is_err(), "byte {at} of the request");
        let mut changed = answer.to_vec();
        changed[at] ^= 0x10;
        assert!(opener.open(&changed).is_err(), "byte {at} of the response");
    }
}

#[test]
fn chunks_cannot_be_cut_off_swapped_or_repeated() {
    let ends = Ends::new();
    let (sealed, _) = ends.seal(&body(3 * CHUNK));
    let chunk = |number: usize| &sealed[HEADER + number * (CHUNK + TAG)..][..CHUNK + TAG];
    let made = |numbers: &[usize]| {
        let mut bytes = sealed[..HEADER].to_vec();
        numbers.iter().for_each(|number| bytes.extend_from_slice(chunk(*number)));
        error(ends.open(&bytes))
    };
    assert_eq!(made(&[0, 1, 2]), None);
    for numbers in [&[0, 1][..], &[0], &[2], &[1, 0, 2], &[0, 1, 1, 2], &[0, 1, 2, 2], &[0, 2]] {
        assert_eq!(made(numbers), Some(SealError::Forged), "{numbers:?}");
    }
    assert_eq!(made(&[]), Some(SealError::Malformed));
    for len in [0, 1, HEADER, HEADER + TAG - 1] {
        assert_eq!(error(ends.open(&sealed[..len])), Some(SealError::Malformed), "{len}");
    }
    assert_eq!(error(ends.open(&sealed[..sealed.len() - 1])), Some(SealError::Forged));
}

#[test]
fn a_body_opens_only_where_and_for_whom_it_was_sealed() {
    let ends = Ends::new();
    let (sealed, _) = ends.seal(b"for one destination");
    let other = NodeSecret::from_seed(&[3; 32]);
    let theirs = Context { destination: &other.public(), ..ends.context() };
    assert_eq!(error(open_request(&theirs, &other, &sealed)), Some(SealError::Forged));
    // Sent on by another author, for another app, on another network.
    let foreign = Network { chain_id: "testnet".into(), ..ends.network.clone() };
    for context in [
        Context { author: &other.public(), ..ends.context() },
        Context { app: "sealed/other", ..ends.context() },
        Context { network: &foreign, ..ends.context() },
    ] {
        assert_eq!(error(open_request(&context, &ends.secret, &sealed)), Some(SealError::Forged));
    }
}

#[test]
fn a_response_opens_only_for_its_request() {
    let ends = Ends::new();
    let (first, first_opener) = ends.seal(b"question");
    let (second, second_opener) = ends.seal(b"question");
    let (_, sealer) = ends.open(&first).expect("opened");
    let answer = sealer.seal(b"answer").expect("sealed");
    assert_eq!(error(second_opener.open(&answer)), Some(SealError::Forged));
    assert_eq!(error(first_opener.open(&first)), Some(SealError::Forged));
    assert_eq!(error(first_opener.open(&second)), Some(SealError::Forged));
    assert_eq!(error(first_opener.open(&refusal())), Some(SealError::Refused));
    assert_eq!(first_opener.open(&answer).expect("opened"), "answer");
}

#[test]
fn keys_that_make_every_secret_the_same_are_refused() {
    let ends = Ends::new();
    // The neutral element, which has a small order.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let context = Context { destination: &NodeKey(neutral), ..ends.context() };
    assert_eq!(error(seal_request(&context, b"x")), Some(SealError::Key));
    let mut sealed = vec![VERSION];
    sealed.extend([0; 32 + TAG]);
    assert_eq!(error(ends.open(&sealed)), Some(SealError::Key));
}

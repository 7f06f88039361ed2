//! What every log does.

use hookcast_core::clock::Timestamp;
use hookcast_core::model::Seq;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::page::PURGED_EXTENSION;
use hookcast_core::model::source::{SourceGap, SourceRecord, SourceSpec};
use hookcast_log::storage::{Append, Bounds, FingerprintChunk, StorageErrorKind, Store};

use super::make::{append, page, page_of, position, position_of, positions, seqs, source};

pub(crate) async fn an_empty_log_has_an_id_and_no_events(store: &Store) {
    let id = store.log.log_id();
    assert!(id.len() == 8 && id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7')), "{id}");
    assert_eq!(store.log.bounds().await.unwrap(), Bounds { first: Seq(1), head: Seq(0), bytes: 0 });
    assert!(store.log.read(Seq(0), 1024).await.unwrap().pages.is_empty());
    assert!(store.log.get(&[Seq(1)]).await.unwrap().is_empty());
    assert_eq!(store.log.before_time(Timestamp(5)).await.unwrap(), Seq(0));
    assert!(store.log.fingerprints().await.unwrap().is_empty());
    assert!(!store.log.trim(Timestamp(i64::MAX), 0, 10).await.unwrap().1);
    store.log.writable().await.unwrap();
}

pub(crate) async fn pages_come_back_in_order_and_whole(store: &Store) {
    let pages = vec![page(1, 3, 10), page(4, 1, 11), page(5, 64, 12)];
    append(store, pages.clone()).await;
    append(store, vec![page(69, 2, 13)]).await;
    let bytes: usize = pages.iter().map(|page| page.bytes().len()).sum::<usize>() + page(69, 2, 13).bytes().len();
    assert_eq!(store.log.bounds().await.unwrap(), Bounds { first: Seq(1), head: Seq(70), bytes: bytes as u64 });
    assert_eq!(positions(store).await, (1..=70).collect::<Vec<_>>());
    let behind_the_middle = store.log.read(Seq(5), 1 << 20).await.unwrap().pages;
    assert_eq!(behind_the_middle.iter().map(|page| page.first().0).collect::<Vec<_>>(), [5, 69]);
    assert_eq!(behind_the_middle[0].bytes(), pages[2].bytes());
    assert!(store.log.read(Seq(70), 1 << 20).await.unwrap().pages.is_empty());
    assert!(store.log.read(Seq(u64::MAX), 1 << 20).await.unwrap().pages.is_empty());
}

pub(crate) async fn a_read_gives_one_page_at_least_and_no_more_than_asked(store: &Store) {
    append(store, (0..10).map(|n| page_of(1 + n, 1, 5, 1000)).collect()).await;
    let one = page_of(1, 1, 5, 1000).bytes().len();
    for (bytes_max, expected) in [(0, 1), (1, 1), (one, 1), (2 * one + 5, 2), (1 << 20, 10)] {
        assert_eq!(store.log.read(Seq(0), bytes_max).await.unwrap().pages.len(), expected, "{bytes_max}");
    }
}

pub(crate) async fn events_are_found_by_position(store: &Store) {
    append(store, vec![page(1, 5, 1), page(6, 5, 1), page(11, 5, 1)]).await;
    let wanted: Vec<Seq> = [15, 2, 99, 7, 3, 2, 0].map(Seq).to_vec();
    let found = store.log.get(&wanted).await.unwrap();
    assert_eq!(seqs(&found), [2, 3, 7, 15]);
    assert_eq!(found[2].fields().id, "event-7");
    assert!(store.log.get(&[]).await.unwrap().is_empty());
    let all: Vec<Seq> = (1..=15).map(Seq).collect();
    assert_eq!(store.log.get(&all).await.unwrap().len(), 15);
}

pub(crate) async fn an_append_elsewhere_than_at_the_head_is_refused_whole(store: &Store) {
    store.catalog.put_source(source("up"), 0).await.unwrap();
    append(store, vec![page(1, 2, 1)]).await;
    let token = || vec![position("up", "9")];
    let wrong = [
        Append { pages: vec![page(2, 1, 1)], expected_head: Seq(1), resume_tokens: token(), ..Append::default() },
        Append { pages: vec![page(3, 1, 1)], expected_head: Seq(3), resume_tokens: token(), ..Append::default() },
        Append { pages: vec![page(3, 1, 1), page(5, 1, 1)], expected_head: Seq(2), resume_tokens: token(), ..Append::default() },
        Append { expected_head: Seq(1), resume_tokens: token(), ..Append::default() },
    ];
    for append in wrong {
        assert_eq!(store.log.append(append).await.unwrap_err().kind, StorageErrorKind::Conflict);
    }
    assert_eq!(positions(store).await, [1, 2]);
    assert_eq!(store.catalog.sources().await.unwrap()[0].resume_token, None);
    append(store, vec![page(3, 1, 1)]).await;
    assert_eq!(positions(store).await, [1, 2, 3]);
}

pub(crate) async fn concurrent_appends_with_one_head_let_one_through(store: &Store) {
    let attempts = (0..20).map(|_| async {
        store.log.append(Append { pages: vec![page(1, 1, 1)], expected_head: Seq(0), ..Append::default() }).await.is_ok()
    });
    let won = futures_util::future::join_all(attempts).await.into_iter().filter(|won| *won).count();
    assert_eq!((won, positions(store).await), (1, vec![1]));
}

pub(crate) async fn resume_tokens_move_with_the_events(store: &Store) {
    store.catalog.put_source(source("a"), 0).await.unwrap();
    store.catalog.put_source(source("b"), 0).await.unwrap();
    let resume_tokens = vec![position("a", "1"), position("b", "x"), position("a", "2"), position("unknown", "3")];
    store.log.append(Append { pages: vec![page(1, 1, 1)], resume_tokens, ..Append::default() }).await.unwrap();
    let read = || async {
        let sources = store.catalog.sources().await.unwrap();
        sources.into_iter().map(|s| (s.spec.name, s.resume_token.unwrap().as_str().to_owned())).collect::<Vec<_>>()
    };
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    assert_eq!(read().await, [pair("a", "2"), pair("b", "x")]);
    let alone = Append { expected_head: Seq(1), resume_tokens: vec![position("b", "y")], ..Append::default() };
    store.log.append(alone).await.unwrap();
    assert_eq!(read().await, [pair("a", "2"), pair("b", "y")]);
    assert_eq!(store.log.bounds().await.unwrap().head, Seq(1));
}

pub(crate) async fn the_position_of_an_upstream_that_was_replaced_is_left_out(store: &Store) {
    let first = store.catalog.put_source(source("up"), 0).await.unwrap();
    let say = async |seq: u64, reader: &SourceRecord, token: &str| {
        let (pages, resume_tokens) = (vec![page(seq, 1, 1)], vec![position_of(reader, token)]);
        let append = Append { pages, expected_head: Seq(seq - 1), resume_tokens, ..Append::default() };
        store.log.append(append).await.unwrap();
        let token = store.catalog.sources().await.unwrap()[0].resume_token.clone();
        token.map(|token| token.as_str().to_owned())
    };
    assert_eq!(say(1, &first, "1").await.as_deref(), Some("1"));
    // Twice another URL with nothing between, as somebody who mistypes does; what they know of the log is old.
    let with_url = |record: &SourceRecord, url: &str| {
        let spec = SourceSpec { url: url.to_owned(), ..record.spec.clone() };
        record.with_spec(spec, Seq(0), Timestamp(5))
    };
    let second = store.catalog.put_source(with_url(&first, "https://example.com/2"), 1).await.unwrap();
    let third = store.catalog.put_source(with_url(&second, "https://example.com/3"), 2).await.unwrap();
    assert_eq!((second.ids_after, third.ids_after), (Seq(1), Seq(1)), "what is there is of the one before");
    assert_eq!(say(2, &first, "2").await, None);
    assert_eq!(say(3, &second, "3").await, None);
    assert_eq!(say(4, &third, "4").await.as_deref(), Some("4"));
    // Back at the first is another upstream too; any other change is none.
    let back = store.catalog.put_source(with_url(&third, &first.spec.url), 3).await.unwrap();
    assert_eq!(say(5, &first, "5").await, None);
    let spec = SourceSpec { enabled: false, ..back.spec.clone() };
    store.catalog.put_source(back.with_spec(spec, Seq(5), Timestamp(6)), 4).await.unwrap();
    assert_eq!(say(6, &back, "6").await.as_deref(), Some("6"));
    // Made again under its name.
    assert!(store.catalog.delete_source("up").await.unwrap());
    let again = SourceRecord { created_at: Timestamp(7), ..source("up") };
    let again = store.catalog.put_source(again, 0).await.unwrap();
    assert_eq!(say(7, &back, "7").await, None);
    assert_eq!(say(8, &again, "8").await.as_deref(), Some("8"));
    assert_eq!(positions(store).await, (1..=8).collect::<Vec<_>>());
}

pub(crate) async fn fingerprints_are_kept_until_dropped(store: &Store) {
    let chunk = |first: u64| FingerprintChunk {
        first: Seq(first),
        last: Seq(first + 1),
        last_at: Timestamp(5),
        bytes: vec![u8::try_from(first).unwrap(); 65_536],
    };
    let gaps = vec![SourceGap { source: "up".to_owned(), from: Timestamp(1), to: Timestamp(2), at_seq: Seq(0) }];
    let fingerprints = vec![chunk(3), chunk(1)];
    store.log.append(Append { pages: vec![page(1, 6, 1)], fingerprints, gaps, ..Append::default() }).await.unwrap();
    let more = Append { expected_head: Seq(6), fingerprints: vec![chunk(5)], ..Append::default() };
    store.log.append(more).await.unwrap();
    assert_eq!(store.log.fingerprints().await.unwrap(), [chunk(1), chunk(3), chunk(5)]);
    store.log.drop_fingerprints(Seq(3)).await.unwrap();
    assert_eq!(store.log.fingerprints().await.unwrap(), [chunk(3), chunk(5)]);
    // A chunk reaches as far as its last position, over the jump of a restored log as well.
    store.log.drop_fingerprints(Seq(6)).await.unwrap();
    assert_eq!(store.log.fingerprints().await.unwrap(), [chunk(5)]);
    store.log.drop_fingerprints(Seq(100)).await.unwrap();
    assert!(store.log.fingerprints().await.unwrap().is_empty());
    assert_eq!(store.catalog.gaps("up", 5).await.unwrap().len(), 1);
}

pub(crate) async fn a_time_is_found_between_pages(store: &Store) {
    append(store, (0..40).map(|n| page(1 + n * 2, 2, 1000 + i64::try_from(n).unwrap() * 10)).collect()).await;
    for (time, expected) in [(0, 0), (1000, 0), (1001, 2), (1010, 2), (1195, 40), (1390, 78), (1391, 80), (9999, 80)] {
        assert_eq!(store.log.before_time(Timestamp(time)).await.unwrap(), Seq(expected), "{time}");
    }
    store.log.trim(Timestamp(1100), u64::MAX, 100).await.unwrap();
    assert_eq!(store.log.before_time(Timestamp(5)).await.unwrap(), Seq(20));
    assert_eq!(store.log.before_time(Timestamp(1195)).await.unwrap(), Seq(40));
}

pub(crate) async fn a_clock_that_slips_back_hides_nothing(store: &Store) {
    let times = [1000, 2000, 5000, 4000, 4500, 6000, 5500, 7000];
    append(store, times.iter().zip(1..).map(|(time, first)| page(first, 1, *time)).collect()).await;
    for (time, expected) in [(1500, 1), (4200, 2), (5000, 2), (5001, 5), (6001, 7), (7001, 8)] {
        assert_eq!(store.log.before_time(Timestamp(time)).await.unwrap(), Seq(expected), "{time}");
    }
}

pub(crate) async fn many_small_appends_keep_count(store: &Store) {
    let mut bytes = 0;
    for seq in 1..=300 {
        let page = page(seq, 1, 1);
        bytes += page.bytes().len() as u64;
        store.log.append(Append { pages: vec![page], expected_head: Seq(seq - 1), ..Append::default() }).await.unwrap();
    }
    assert_eq!(store.log.bounds().await.unwrap(), Bounds { first: Seq(1), head: Seq(300), bytes });
    assert_eq!(positions(store).await.len(), 300);
}

pub(crate) async fn purged_data_is_gone_and_everything_else_stays(store: &Store) {
    append(store, vec![page(1, 5, 1), page(6, 5, 1)]).await;
    let before = store.log.get(&(1..=10).map(Seq).collect::<Vec<_>>()).await.unwrap();
    assert!(store.log.purge(Seq(3)).await.unwrap());
    assert!(store.log.purge(Seq(3)).await.unwrap(), "again is no mistake");
    assert!(store.log.purge(Seq(10)).await.unwrap());
    for nowhere in [0, 11, u64::MAX >> 1] {
        assert!(!store.log.purge(Seq(nowhere)).await.unwrap(), "{nowhere}");
    }
    let after = store.log.get(&(1..=10).map(Seq).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(seqs(&after), seqs(&before));
    for (old, new) in before.iter().zip(&after) {
        let is_purged = matches!(new.seq().0, 3 | 10);
        let (old_fields, new_fields) = (old.fields(), new.fields());
        assert_eq!(
            (old_fields.id, old_fields.kind, old_fields.content_type),
            (new_fields.id, new_fields.kind, new_fields.content_type)
        );
        assert_eq!((old.topic(), old.arrived_at()), (new.topic(), new.arrived_at()));
        assert_eq!(new_fields.extensions().any(|extension| extension == (PURGED_EXTENSION, "true")), is_purged);
        match (is_purged, new_fields.form) {
            (false, _) => assert_eq!(old_fields.data, new_fields.data),
            (true, DataForm::Json) => assert_eq!(new_fields.data, b"null"),
            (true, _) => assert_eq!(new_fields.data, b""),
        }
    }
    assert_eq!(positions(store).await, (1..=10).collect::<Vec<_>>());
    append(store, vec![page(11, 1, 1)]).await;
    assert_eq!(positions(store).await, (1..=11).collect::<Vec<_>>());
}

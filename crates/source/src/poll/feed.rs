//! RSS and Atom: a feed becomes a list of JSON items, in the feed's order. Pure.
//!
//! An item is `{"id","title","link","links","published","updated","summary","content","authors","categories"}`; what an entry
//! does not have is left out. Spec: RFC 4287, RSS 2.0, RSS 1.0.

use bytes::Bytes;
use feed_rs::model::{Entry, Link};
use serde_json::{Map, Value, json};

use super::list::{ITEMS_MAX, Item, List, ListFault};
use hookcast_core::clock::Timestamp;

/// How far into a body its root element is looked for.
const ROOT_BYTES_MAX: usize = 4096;

/// Whether a body is a feed: its media type says so, or its root element does.
pub(super) fn is_feed(body: &[u8], media_type: Option<&str>) -> bool {
    if media_type.is_some_and(|name| name.contains("rss+") || name.contains("atom+")) {
        return true;
    }
    let head = &body[..body.len().min(ROOT_BYTES_MAX)];
    let holds = |root: &[u8]| memchr::memmem::find(head, root).is_some();
    head.first() == Some(&b'<') && (holds(b"<rss") || holds(b"<feed") || holds(b"<rdf:RDF") || holds(b"<RDF"))
}

/// Reads a feed.
pub(super) fn read(body: &[u8]) -> Result<List, ListFault> {
    // Entries without an id are known by their content; a made-up one would be another each time.
    let parser = feed_rs::parser::Builder::new().id_generator(|_, _, _| String::new()).build();
    let feed = parser.parse(body).map_err(|_| ListFault::Feed)?;
    if feed.entries.len() > ITEMS_MAX {
        return Err(ListFault::TooMany);
    }
    let items = feed.entries.iter().map(item).collect();
    Ok(List { items, is_many: true, ttl_min: feed.ttl.unwrap_or(0), ..List::default() })
}

fn item(entry: &Entry) -> Item {
    let mut form = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            form.insert(name.to_owned(), value);
        }
    };
    let time = |millis: i64| json!(Timestamp(millis).to_string());
    let own = entry.links.iter().find(|link| link.rel.as_deref().is_none_or(|rel| rel == "alternate")).or(entry.links.first());
    put("id", (!entry.id.is_empty()).then(|| json!(entry.id)));
    put("title", entry.title.as_ref().map(|title| json!(title.content)));
    put("link", own.map(|link| json!(link.href)));
    put("links", (entry.links.len() > 1).then(|| entry.links.iter().map(link).collect()));
    put("published", entry.published.map(|at| time(at.timestamp_millis())));
    put("updated", entry.updated.map(|at| time(at.timestamp_millis())));
    put("summary", entry.summary.as_ref().map(|summary| json!(summary.content)));
    put("content", entry.content.as_ref().and_then(|content| content.body.as_ref()).map(|body| json!(body)));
    let authors: Vec<&str> = entry.authors.iter().filter_map(|author| author.name.as_deref()).collect();
    put("authors", (!authors.is_empty()).then(|| json!(authors)));
    let categories: Vec<&str> = entry.categories.iter().map(|category| category.term.as_str()).collect();
    put("categories", (!categories.is_empty()).then(|| json!(categories)));
    let id = (!entry.id.is_empty()).then(|| entry.id.clone());
    Item::new(Bytes::from(Value::Object(form).to_string()), true, id)
}

fn link(link: &Link) -> Value {
    let mut form = json!({ "href": link.href });
    if let Some(rel) = &link.rel {
        form["rel"] = json!(rel);
    }
    if let Some(kind) = &link.media_type {
        form["type"] = json!(kind);
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(body: &str) -> Vec<Value> {
        read(body.as_bytes()).unwrap().items.iter().map(|item| serde_json::from_slice(&item.data).unwrap()).collect()
    }

    #[test]
    fn an_atom_feed_becomes_json() {
        let body = r#"<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><title>t</title><id>f</id>
            <entry><id>urn:1</id><title>M 2.0 &amp; more</title><link href="https://example.com/1"/><updated>2018-02-07T01:26:13.840Z</updated>
            <author><name>ci</name></author><category term="quake"/><summary>s</summary></entry></feed>"#;
        assert!(is_feed(body.as_bytes(), None));
        let expected = json!({"id": "urn:1", "title": "M 2.0 & more", "link": "https://example.com/1",
            "updated": "2018-02-07T01:26:13.840Z", "authors": ["ci"], "categories": ["quake"], "summary": "s"});
        let mut form = forms(body).remove(0);
        form.as_object_mut().unwrap().remove("published");
        assert_eq!(form, expected);
    }

    #[test]
    fn an_rss_feed_says_how_long_it_may_be_kept_and_entries_without_id_have_none() {
        let body = r#"<rss version="2.0"><channel><title>t</title><link>https://example.com/</link><description>d</description><ttl>5</ttl>
            <item><title>a</title><guid>g1</guid></item><item><title>b</title></item></channel></rss>"#;
        let list = read(body.as_bytes()).unwrap();
        assert_eq!((list.ttl_min, list.items.len()), (5, 2));
        assert_eq!((list.items[0].id.as_deref(), list.items[1].id.as_deref()), (Some("g1"), None));
        assert_eq!(list.items[1].data, read(body.as_bytes()).unwrap().items[1].data);
    }

    #[test]
    fn what_is_no_feed_is_told_apart_or_refused() {
        assert!(!is_feed(b"{\"rss\":\"<rss\"}", None) && !is_feed(b"<html>", Some("text/html")));
        assert!(is_feed(b"x", Some("application/atom+xml")));
        for body in ["<feed", "<rss version=\"2.0\"><channel><item>", "<feed><entry></feed>", "<rss/>", ""] {
            assert!(read(body.as_bytes()).err().is_none_or(|fault| fault == ListFault::Feed), "{body}");
        }
    }

    #[test]
    fn entities_are_not_expanded_and_depth_is_no_danger() {
        let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><rss version="2.0"><channel><title>&b;&b;</title><item><title>&b;</title><guid>1</guid></item></channel></rss>"#;
        if let Ok(list) = read(bomb.as_bytes()) {
            assert!(list.items.iter().all(|item| item.data.len() < 200), "{:?}", list.items);
        }
        let deep = format!(
            r#"<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>1</id><content type="xhtml">{}{}</content></entry></feed>"#,
            "<div>".repeat(100_000),
            "</div>".repeat(100_000)
        );
        let _ = read(deep.as_bytes());
    }
}

//! A large file is read in two halves, side by side: reading is most of what there is to do for it.
//!
//! TOML goes by lines: behind lines that are whole by themselves something new begins, whatever it is. So a file is cut before
//! a `[[routes]]`. Where a half is not whole, or has more in common with the other than the lists that both add to, the file is
//! read in one piece, so that nothing is found otherwise than in a small one.

use toml::Spanned;
use toml::de::DeTable;

use super::beside::both;
use super::parse::Read;
use super::raw::Raw;
use super::reader::{Context, Table};

/// Reads `text`, which begins at `base`, in two halves. What they were read from goes to `discard`. `None`: it has to be read in
/// one piece, and nothing is said of it yet.
pub(super) fn read<'t>(
    cx: &Context<'_>,
    (base, text): (usize, &'t str),
    read: Read,
    discard: impl FnOnce(Vec<Spanned<DeTable<'t>>>),
) -> Option<Raw> {
    let (first, second) = text.split_at(middle(text)?);
    let (env, directory) = (cx.env, cx.directory);
    let (other, one) = both(
        || half(Context::new(env, directory), (base + first.len(), second), Raw::read_lists, has_lists_only),
        || half(Context::new(env, directory), (base, first), read, adds_to_lists),
    );
    let (one, other) = (one?, other?);
    let mut raw = one.raw;
    raw.append(other.raw);
    cx.take_in(one.cx);
    cx.take_in(other.cx);
    discard(vec![one.table, other.table]);
    Some(raw)
}

/// Whether a text is worth another thread.
pub(super) const fn is_large(text: &str) -> bool {
    text.len() >= LARGE
}

struct Half<'c, 't> {
    cx: Context<'c>,
    raw: Raw,
    table: Spanned<DeTable<'t>>,
}

fn half<'c, 't>(
    cx: Context<'c>,
    (base, text): (usize, &'t str),
    read: Read,
    is_possible: fn(&DeTable<'_>) -> bool,
) -> Option<Half<'c, 't>> {
    cx.begin(base);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() || !is_possible(table.get_ref()) {
        return None;
    }
    let raw = read(&cx, Table::new(&cx, "", table.get_ref(), base..base));
    Some(Half { cx, raw, table })
}

/// The first `[[routes]]` behind the middle.
fn middle(text: &str) -> Option<usize> {
    let from = text.len() / 2;
    let found = is_large(text).then(|| memchr::memmem::find(&text.as_bytes()[from..], HEADER)).flatten();
    // The line break belongs to the first half.
    found.map(|at| from + at + 1)
}

fn has_lists_only(half: &DeTable<'_>) -> bool {
    half.keys().all(|key| LISTS.contains(&key.get_ref().as_ref())) && adds_to_lists(half)
}

/// Whether each of the lists, if it is there at all, is made of tables with headers, to which more can be added.
fn adds_to_lists(half: &DeTable<'_>) -> bool {
    let mut written = LISTS.iter().filter_map(|list| half.get(*list));
    written.all(|value| {
        let first = value.get_ref().as_array().and_then(|list| list.first());
        // Such a list is said to stand where its first header does.
        first.is_some_and(|first| first.span() == value.span())
    })
}

const LISTS: [&str; 2] = ["routes", "tests"];

const HEADER: &[u8] = b"\n[[routes]]";

/// Reading so many bytes takes several milliseconds, and a thread a tenth of one.
const LARGE: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, load_text};
    use super::*;

    const UPSTREAM: &str = "[upstreams]\napp = \"http://a\"\n";

    fn route(at: usize) -> String {
        format!(
            "[[routes]]\nname = \"r{at}\"\npath = \"/{at}/**\"\nallow = {{ groups = [\"g{at}\"] }}\nupstream = \"app\"\n"
        )
    }

    fn routes(count: usize) -> String {
        (0..count).map(route).collect()
    }

    /// Whether `text` is read in halves.
    fn is_cut(text: &str) -> bool {
        assert!(is_large(text), "{} bytes", text.len());
        let cx = Context::new(&|_| None, Path::new(""));
        let raw = read(&cx, (0, text), Raw::read, drop);
        assert!(raw.is_some() || cx.into_parts().0.is_empty(), "nothing is said yet");
        raw.is_some()
    }

    fn load(text: &str) -> (Option<Config>, String) {
        let loaded = load_text(Path::new("gateway.toml"), text.to_owned(), &|_| None);
        let rendered = loaded.diagnostics.render(false);
        (loaded.config, rendered)
    }

    /// The same file, in which no header can be cut before.
    fn in_one_piece(text: &str) -> String {
        text.replace("\n[[routes]]", "\n[[ routes]]")
    }

    #[test]
    fn what_is_read_in_halves_is_what_is_read_in_one_piece() {
        let test =
            "[[tests]]\nrequest = \"GET /7/x\"\nas = { user = \"bob\", groups = [\"g7\"] }\nexpect = \"allow\"\n";
        let sub = "[routes.identity]\nuser = \"X-User\"\n";
        for text in [
            format!("{UPSTREAM}{}", routes(3_000)),
            format!("{UPSTREAM}{test}{}{test}{}{sub}{test}", routes(2_000), route(2_000)),
            format!("# ä\n{UPSTREAM}{}", routes(3_000)).replace('\n', "\r\n"),
        ] {
            assert!(is_cut(&text) && !is_cut(&in_one_piece(&text)));
            let (halves, whole) = (load(&text), load(&in_one_piece(&text)));
            assert_eq!((halves.1.as_str(), whole.1.as_str()), ("", ""));
            let (halves, whole) = (halves.0.unwrap(), whole.0.unwrap());
            assert_eq!(format!("{:?}", halves.routes), format!("{:?}", whole.routes));
            assert_eq!(format!("{:?}", halves.upstreams), format!("{:?}", whole.upstreams));
            assert_eq!(halves.tests.len(), whole.tests.len());
            for (at, (route, place)) in halves.routes.iter().zip(&halves.route_places).enumerate() {
                assert_eq!((route.index, &text[place.clone()]), (at, format!("\"{}\"", route.name).as_str()));
            }
        }
    }

    #[test]
    fn findings_in_either_half_are_those_of_one_piece() {
        let bad = "[[routes]]\npath = \"/bad/**\"\nallow = \"anyon\"\nupstream = \"ap\"\nfoo = 1\n";
        let twice = route(1);
        for text in [
            format!("{UPSTREAM}{bad}{}", routes(3_000)),
            format!("{UPSTREAM}{}{bad}{twice}", routes(3_000)),
            format!("serve = 1\n{UPSTREAM}{}{bad}[[tests]]\nrequst = \"GET /\"\n", routes(3_000)),
        ] {
            assert!(is_cut(&text));
            let (halves, whole) = (load(&text), load(&in_one_piece(&text)));
            assert!(halves.0.is_none() && halves.1.contains("error["), "{}", halves.1);
            assert_eq!(halves.1.replace("[[routes]]", "[[ routes]]"), whole.1.replace("`[[routes]]`", "`[[ routes]]`"));
        }
    }

    #[test]
    fn what_hangs_together_is_read_in_one_piece() {
        let many = routes(3_000);
        let (before, after) = many.split_at(many.len() / 2 + many[many.len() / 2..].find("[[routes]]").unwrap());
        for (text, why) in [
            (format!("{UPSTREAM}{many}x = \"\"\"\n"), "a string that does not end"),
            (format!("{UPSTREAM}{before}description = '''\n{after}'''\n"), "the cut is in a string"),
            (format!("{UPSTREAM}{before}x = [\n{after}]\n"), "the cut is in a list"),
            (format!("{UPSTREAM}{many}[upstreams.b]\nservers = [\"http://b\"]\n"), "a table in both"),
            (format!("{UPSTREAM}{many}[login]\ntitle = \"x\"\n"), "a section in the second half"),
            (
                format!("tests = []\n{UPSTREAM}{many}[[tests]]\nrequest = \"GET /\"\nexpect = \"allow\"\n"),
                "a closed list",
            ),
            (format!("routes.x = 1\n{UPSTREAM}{many}"), "no list at all"),
        ] {
            assert!(!is_cut(&text), "{why}");
        }
        assert!(load(&format!("routes = []\n{UPSTREAM}{many}")).1.contains("duplicate-key"));
        let (config, found) = load(&format!("{UPSTREAM}{many}[upstreams.b]\nservers = [\"http://b\"]\n"));
        assert_eq!((config.unwrap().upstreams.len(), found.contains("unused-upstream")), (2, true));
    }

    #[test]
    fn a_small_file_is_read_in_one_piece() {
        assert_eq!(middle(&format!("{UPSTREAM}{}", routes(10))), None);
    }
}

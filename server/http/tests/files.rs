//! Files as responses, driven in memory: ranges, conditions, and no way out of the directory.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use barewire_conformance::driver::{Driver, Memory};
use barewire_http::files::{Directory, DirectoryConfig};
use barewire_http::{Answer, Request, Responder, Response, Route, Routes};
use barewire_service::service::{Input, Next, Reply, Service};
use tempfile::TempDir;

const ROUTES: &[Route<Directory>] = &[Route::new("/").get(file), Route::new("/{*path}").get(file)];

fn file(files: &mut Directory, request: &Request<'_>, response: Response<'_, '_>) -> Answer {
    files.answer(request, request.param("path").unwrap_or(""), response)
}

/// Files of up to this size are kept in memory.
const KEPT_BYTES_MAX: usize = 10_000;

struct Files {
    directory: TempDir,
    memory: Memory<Responder<Directory>>,
}

/// A response: its status, its head, its content.
type Got = (u16, String, Vec<u8>);

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = DirectoryConfig {
            kept_file_bytes_max: KEPT_BYTES_MAX,
            ..DirectoryConfig::default()
        };
        let served = directory.path().join("served");
        fs::create_dir(&served).unwrap();
        let files = Directory::open(&served, config).unwrap();
        Files {
            directory,
            memory: Memory::new(Responder::new(&Routes::new(ROUTES).unwrap(), files)),
        }
    }

    /// Writes a file into the directory, last changed in 1994.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.directory.path().join("served").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(modified)
            .unwrap();
    }

    fn ask(&mut self, method: &str, target: &str, fields: &str) -> Got {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let answer = self.memory.exchange(&[request.as_bytes()]).unwrap();
        let end = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap()
            + 4;
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        (head[9..12].parse().unwrap(), head, answer[end..].to_vec())
    }

    fn get(&mut self, target: &str, fields: &str) -> Got {
        self.ask("GET", target, fields)
    }
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Bytes of which no part is like another.
fn content(len: usize) -> Vec<u8> {
    (0..len as u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(len)
        .collect()
}

#[test]
fn a_file_comes_with_its_type_its_length_and_its_validators() {
    let mut files = Files::new();
    for (name, media_type) in [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.json", "application/json"),
        ("a b.tar.gz", "application/gzip"),
        ("a", "application/octet-stream"),
        ("empty.txt", "text/plain; charset=utf-8"),
    ] {
        let data = if name == "empty.txt" {
            vec![]
        } else {
            content(100)
        };
        files.write(name, &data);
        let (status, head, got) = files.get(&format!("/{}", name.replace(' ', "%20")), "");
        assert_eq!((status, &got), (200, &data), "{head}");
        assert_eq!(field(&head, "Content-Type"), Some(media_type));
        assert_eq!(
            field(&head, "Content-Length"),
            Some(&*data.len().to_string())
        );
        assert_eq!(
            field(&head, "Last-Modified"),
            Some("Sun, 06 Nov 1994 08:49:37 GMT")
        );
        assert_eq!(field(&head, "Accept-Ranges"), Some("bytes"));
        assert!(field(&head, "ETag").unwrap().starts_with('"'));
        let (status, of_head, got) =
            files.ask("HEAD", &format!("/{}", name.replace(' ', "%20")), "");
        assert_eq!((status, got.len(), of_head), (200, 0, head));
    }
    assert_eq!(files.ask("POST", "/a", "Content-Length: 0\r\n").0, 405);
}

#[test]
fn parts_and_conditions_are_the_same_from_memory_and_from_disk() {
    let mut files = Files::new();
    for len in [KEPT_BYTES_MAX, KEPT_BYTES_MAX + 1, 100_000] {
        let data = content(len);
        let name = format!("/{len}");
        files.write(&name[1..], &data);
        for reply_bytes in [1024, 65_536] {
            files.memory.reply_bytes = reply_bytes;
            let (status, head, got) = files.get(&name, "");
            assert!(status == 200 && got == data);
            let etag = field(&head, "ETag").unwrap().to_owned();
            let date = "Sun, 06 Nov 1994 08:49:37 GMT";

            for (fields, range) in [
                ("Range: bytes=0-0\r\n".to_owned(), 0..1),
                ("Range: bytes=100-\r\n".to_owned(), 100..len),
                ("Range: bytes=-7\r\n".to_owned(), len - 7..len),
                ("Range: bytes=5000-99999999\r\n".to_owned(), 5000..len),
                ("Range: bytes=1-2,3-9\r\n".to_owned(), 1..10),
                (format!("Range: bytes=1-9\r\nIf-Range: {etag}\r\n"), 1..10),
                (format!("Range: bytes=1-9\r\nIf-Range: {date}\r\n"), 1..10),
            ] {
                let (status, head, got) = files.get(&name, &fields);
                assert_eq!(
                    (status, &got[..]),
                    (206, &data[range.clone()]),
                    "{fields}{head}"
                );
                let expected = format!("bytes {}-{}/{len}", range.start, range.end - 1);
                assert_eq!(field(&head, "Content-Range"), Some(&*expected));
                assert_eq!(field(&head, "ETag"), Some(&*etag));
            }
            for fields in [
                "Range: bytes=1-2,9000-9001\r\n",
                "Range: lines=1-2\r\n",
                "Range: bytes=2-1\r\n",
                "Range: bytes=1-2\r\nIf-Range: \"other\"\r\n",
                "Range: bytes=1-2\r\nIf-Range: Sun, 06 Nov 1994 08:49:36 GMT\r\n",
            ] {
                let (status, head, got) = files.get(&name, fields);
                assert!(status == 200 && got == data, "{fields}{head}");
            }
            let (status, head, got) = files.get(&name, "Range: bytes=200000-\r\n");
            assert_eq!((status, got.len()), (416, 0));
            assert_eq!(
                field(&head, "Content-Range"),
                Some(&*format!("bytes */{len}"))
            );
            assert_eq!(files.ask("HEAD", &name, "Range: bytes=0-0\r\n").0, 200);

            for (fields, expected) in [
                (format!("If-None-Match: {etag}\r\n"), 304),
                (format!("If-None-Match: \"a\", W/{etag}\r\n"), 304),
                ("If-None-Match: \"a\"\r\n".to_owned(), 200),
                (format!("If-Modified-Since: {date}\r\n"), 304),
                (
                    "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n".to_owned(),
                    200,
                ),
                (format!("If-Match: {etag}\r\nRange: bytes=0-0\r\n"), 206),
                ("If-Match: \"a\"\r\nRange: bytes=0-0\r\n".to_owned(), 412),
                (format!("If-Unmodified-Since: {date}\r\n"), 200),
                (
                    "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n".to_owned(),
                    412,
                ),
            ] {
                let (status, head, got) = files.get(&name, &fields);
                assert_eq!(status, expected, "{fields}{head}");
                if status == 304 {
                    assert!(got.is_empty() && field(&head, "ETag") == Some(&*etag));
                    assert!(field(&head, "Content-Length").is_none(), "{head}");
                }
            }
        }
    }
}

#[test]
fn a_directory_is_its_index() {
    let mut files = Files::new();
    files.write("index.html", "root");
    files.write("sub/index.html", "sub");
    files.write("bare/file", "file");
    for (target, content) in [
        ("/", "root"),
        ("/sub/", "sub"),
        ("/sub/index.html", "sub"),
        ("/%73ub/", "sub"),
    ] {
        let (status, _, got) = files.get(target, "");
        assert_eq!((status, &got[..]), (200, content.as_bytes()), "{target}");
    }
    let (status, head, _) = files.get("/sub?a=b", "");
    assert_eq!((status, field(&head, "Location")), (301, Some("/sub/?a=b")));
    assert_eq!(files.get("/bare/", "").0, 404);
    assert_eq!(files.get("/sub/index.html/", "").0, 404);
    assert_eq!(files.get("/missing", "").0, 404);
}

#[test]
fn there_is_no_way_out_of_the_directory() {
    let mut files = Files::new();
    let outside = files.directory.path().join("secret");
    fs::write(&outside, "secret").unwrap();
    files.write("a/b/file", "file");
    files.write("a/.env", "hidden");
    files.write(".well-known/x", "known");
    let served = files.directory.path().join("served");
    symlink("b/file", served.join("a/inside")).unwrap();
    symlink("../a/b", served.join("a/up-and-back")).unwrap();
    symlink("../secret", served.join("relative")).unwrap();
    symlink("../../secret", served.join("a/relative")).unwrap();
    symlink(&outside, served.join("absolute")).unwrap();
    symlink("..", served.join("parent")).unwrap();
    symlink("/proc/self/root", served.join("magic")).unwrap();
    symlink("loop", served.join("loop")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, served.join("fifo"), 0o600.into()).unwrap();

    for inside in [
        "/a/b/file",
        "/a/inside",
        "/a/up-and-back/file",
        "/.well-known/x",
    ] {
        assert_eq!(files.get(inside, "").0, 200, "{inside}");
    }
    for outside in [
        "/../secret",
        "/a/../../secret",
        "/a/../b/file",
        "/%2e%2e/secret",
        "/.%2E/secret",
        "/a/%2e%2e/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/a%2fb%2ffile",
        "/..%5csecret",
        "/%5c..%5csecret",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/a//b/file",
        "/a/./b/file",
        "/a/b/file%00",
        "/a/b/file%00.html",
        "/a/.env",
        "/a/%2eenv",
        "/relative",
        "/a/relative",
        "/absolute",
        "/parent/secret",
        "/parent/served/a/b/file",
        "/magic/etc/passwd",
        "/loop",
        "/fifo",
        "/%c0%ae%c0%ae/secret",
        "/%252e%252e/secret",
    ] {
        let (status, _, got) = files.get(outside, "");
        assert_eq!(
            (status, &got[..]),
            (404, &b"There is nothing at this path.\n"[..]),
            "{outside}"
        );
    }
    for malformed in ["/%", "/%2", "/%zz", "/a%2"] {
        assert_eq!(files.get(malformed, "").0, 400, "{malformed}");
    }
}

#[test]
fn a_file_that_changes_is_noticed() {
    let mut files = Files::new();
    files.write("file", "before");
    let (_, head, got) = files.get("/file", "");
    assert_eq!(got, b"before");
    let before = field(&head, "ETag").unwrap().to_owned();
    // Replaced, with the same size and time.
    files.write("new", "after!");
    let served = files.directory.path().join("served");
    fs::rename(served.join("new"), served.join("file")).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let after = loop {
        let (_, head, got) = files.get("/file", &format!("If-None-Match: {before}\r\n"));
        match &got[..] {
            b"" => assert!(std::time::Instant::now() < deadline, "nobody noticed"),
            _ => break (got, field(&head, "ETag").unwrap().to_owned()),
        }
    };
    assert_eq!(after.0, b"after!");
    assert_ne!(after.1, before);
    fs::remove_file(served.join("file")).unwrap();
    while files.get("/file", "").0 != 404 {
        assert!(std::time::Instant::now() < deadline, "nobody noticed");
    }
}

#[test]
fn a_file_that_becomes_shorter_resets_the_connection() {
    let mut files = Files::new();
    files.write("file", content(100_000));
    let request = b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut connection = Default::default();
    let mut space = [0; 4096];
    let mut show = |files: &mut Files, bytes| {
        let input = Input {
            bytes,
            full: false,
            ended: false,
        };
        let mut reply = Reply::new(&mut space);
        files
            .memory
            .service
            .on_input(&mut connection, input, &mut reply)
            .next
    };
    assert_eq!(show(&mut files, request), Next::Send);
    let path = files.directory.path().join("served/file");
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(10_000)
        .unwrap();
    let mut turns = 0;
    while show(&mut files, b"") == Next::Send {
        turns += 1;
    }
    assert!(turns < 10, "{turns}");
    assert_eq!(show(&mut files, b""), Next::Close, "it is over");
}

/// One core's memory is limited, whatever is asked for.
#[test]
fn what_does_not_fit_in_memory_is_read_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let config = DirectoryConfig {
        kept_bytes_max: 250,
        kept_files_max: 2,
        ..DirectoryConfig::default()
    };
    for n in 0..5 {
        fs::write(directory.path().join(n.to_string()), content(100 + n)).unwrap();
    }
    let files = Directory::open(directory.path(), config).unwrap();
    let mut memory = Memory::new(Responder::new(&Routes::new(ROUTES).unwrap(), files));
    for n in [0, 1, 2, 3, 4, 0, 4, 1] {
        let request = format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(
            memory
                .exchange(&[request.as_bytes()])
                .unwrap()
                .ends_with(&content(100 + n))
        );
    }
}

#[test]
fn what_is_no_directory_is_refused() {
    let open =
        |path: &str| Directory::open(Path::new(path), DirectoryConfig::default()).unwrap_err();
    assert!(open("/nowhere").to_string().contains("/nowhere"));
    assert!(open("/dev/null").to_string().contains("Not a directory"));
    let config = DirectoryConfig {
        index: Some("../index.html".to_owned()),
        ..DirectoryConfig::default()
    };
    assert!(Directory::open(Path::new("/"), config).is_err());
}

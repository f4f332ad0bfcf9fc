//! Bodies that the proxy and the backend may read differently, with different keys. If the key or the scope is in the
//! body, they are refused; what real clients send is accepted.

use crate::support::*;

/// Each request is refused with this code, on a route with the key in the body and on one with the scope in the body;
/// on other routes it passes.
async fn refused(selector: &str, requests: &[Request]) {
    let backend = Backend::start().await;
    let scoped = format!("name = \"scoped\"\npath = \"/scoped\"\nscope = [\"{selector}\"]");
    let free = "name = \"free\"\npath = \"/free\"\nscope = []";
    let sidecar = Setup::new(&backend.url())
        .route(&format!("key = \"{selector}\""))
        .another_route(&scoped)
        .another_route(free)
        .start()
        .await;
    for (index, request) in requests.iter().enumerate() {
        for path in ["/orders", "/scoped"] {
            let request = to(request, path).line(&format!("Idempotency-Key: {index}"));
            let answer = sidecar.ask(&request).await;
            assert_eq!(answer.problem(), (400, "invalid-body".to_owned()), "{selector} {path}, request {index}");
            assert!(!answer.text().contains("hunter2"), "{}", answer.text());
        }
    }
    assert_eq!(backend.count(), 0);
    for (index, request) in requests.iter().enumerate() {
        let request = to(request, "/free").line(&format!("Idempotency-Key: {index}"));
        assert_eq!(sidecar.ask(&request).await.status, 201, "{selector}, request {index}");
    }
}

/// Each pair is the same order, sent twice: it runs once.
async fn guarded(selector: &str, requests: &[Request]) {
    for (index, request) in requests.iter().enumerate() {
        let backend = Backend::start().await;
        let sidecar = Setup::new(&backend.url()).route(&format!("key = \"{selector}\"")).start().await;
        let first = sidecar.ask(&to(request, "/orders")).await;
        assert_eq!((first.status, first.is_replay()), (201, false), "{selector}, request {index}: {first:?}");
        assert!(sidecar.ask(&to(request, "/orders")).await.is_replay(), "{selector}, request {index}");
        assert_eq!(backend.count(), 1);
    }
}

fn to(request: &Request, path: &str) -> Request {
    request.clone().at(path)
}

fn typed(media: &str, body: impl AsRef<[u8]>) -> Request {
    post("/").line(&format!("Content-Type: {media}")).body(body)
}

#[tokio::test]
async fn json_in_another_charset_is_refused() {
    let body = r#"{"my_k":"hunter2"}"#;
    let utf_16: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let types = [
        "application/json; charset=utf-7",
        "application/json; charset=\"UTF-7\"",
        "application/json;Charset=utf-16",
        "application/x-www-form-urlencoded; charset=utf-7",
        "text/plain; charset=ebcdic-cp-us",
        "application/json; charset=utf-8; charset=utf-7",
        "application/json; x=\";charset=utf-7\"",
    ];
    let mut requests: Vec<Request> = types.iter().map(|media| typed(media, body)).collect();
    // This is not JSON.
    requests.push(typed("text/plain; charset=utf-16", utf_16));
    requests.push(typed("text/plain; charset=iso-8859-1", b"{\"my_k\":\"hunter2\xe9\"}"));
    // Two types.
    requests.push(typed("application/json", body).line("Content-Type: application/x-www-form-urlencoded"));
    requests.push(typed("application/json, application/x-www-form-urlencoded", body));
    refused("json:/my_k", &requests).await;
    let right = [
        "application/json",
        "application/json; charset=UTF-8",
        "application/json;charset=\"utf-8\"",
        "text/plain; charset=utf8",
    ];
    let mut requests: Vec<Request> = right.iter().map(|media| typed(media, "{\"my_k\":\"\u{e9}\"}")).collect();
    // The default of Apache HttpClient's StringEntity. All readers agree about ASCII.
    requests.push(typed("text/plain; charset=ISO-8859-1", body));
    guarded("json:/my_k", &requests).await;
}

#[tokio::test]
async fn members_that_differ_in_case_only_are_refused() {
    let bodies = [
        r#"{"my_k":"hunter2","MY_K":"b"}"#,
        r#"{"My_K":"hunter2"}"#,
        r#"{"my_\u212a":"hunter2","my_k":"b"}"#,
        r#"{"my_k\u0000x":"hunter2","my_k":"b"}"#,
        r#"{"my_k":"hunter2","my_\u006b":"b"}"#,
    ];
    refused("json:/my_k", &bodies.map(|body| typed("application/json", body))).await;
    let nested = [r#"{"a":{"k":"a"},"A":{"k":"b"}}"#, r#"{"a":{"k":"a","K":"b"}}"#];
    refused("json:/a/k", &nested.map(|body| typed("application/json", body))).await;
    let right = [r#"{"my_k":"a","my_key":"b","MyK":"c","x":{"MY_K":1}}"#];
    guarded("json:/my_k", &right.map(|body| typed("application/json", body))).await;
}

#[tokio::test]
async fn fields_that_frameworks_fold_into_the_key_are_refused() {
    let bodies = [
        "my.k=hunter2&my_k=b",
        "my_k=a&my+k=hunter2",
        "my%20k=hunter2&my_k=b",
        "my%5Bk=hunter2&my_k=b",
        "my[k=hunter2&my_k=b",
        "my[k]=hunter2&my_k=b",
        "my_k%00x=hunter2&my_k=b",
        "[my_k]=hunter2&my_k=b",
        "%5Bmy_k%5D=hunter2&my_k=b",
        "my_k[]=hunter2&my_k=b",
        "my_k=a&my_k[x]=hunter2",
        "+my_k=hunter2&my_k=b",
        "MY_K=hunter2&my_k=b",
        "%EF%BB%BFmy_k=hunter2&my_k=b",
        // Also without the other spelling: there would be no key, or a shared scope.
        "my.k=hunter2",
        "[my_k]=hunter2",
        // Some parsers read two pairs.
        "x=1;my_k=hunter2&my_k=b",
        "my_k=hunter2;x=1",
        "x=1;my.k=hunter2",
        // In another charset.
        "_charset_=utf-7&my_k=hunter2",
    ];
    let form = |body: &str| typed("application/x-www-form-urlencoded", body);
    let mut requests: Vec<Request> = bodies.iter().map(|body| form(body)).collect();
    requests.push(typed("application/x-www-form-urlencoded; charset=utf-7", "my_k=hunter2"));
    requests.push(typed("application/x-www-form-urlencoded; charset=iso-8859-1", "my_k=hunter2%E9"));
    refused("form:my_k", &requests).await;
    let right =
        ["my_k=a&my_key=b&my__k=c&mk=d", "_charset_=UTF-8&my_k=a", "my_k=a%3Bb&x=1;y=2", "filter[my_k]=a&my_k=a"];
    let mut requests: Vec<Request> = right.iter().map(|body| form(body)).collect();
    requests.push(typed("application/x-www-form-urlencoded; charset=UTF-8", "my_k=%C3%A9"));
    requests.push(typed("application/x-www-form-urlencoded;charset=ISO-8859-1", "my_k=a"));
    guarded("form:my_k", &requests).await;
    guarded("form:order[id]", &[form("order[id]=a&order[item]=b&order[tags][]=c")]).await;
}

#[tokio::test]
async fn parameters_that_frameworks_fold_into_the_key_are_refused() {
    let backend = Backend::start().await;
    let scoped = "name = \"scoped\"\npath = \"/scoped\"\nscope = [\"query:my_k\"]";
    let sidecar = Setup::new(&backend.url()).route("key = \"query:my_k\"").another_route(scoped).start().await;
    for query in ["my.k=a&my_k=b", "my_k[]=a&my_k=b", "MY_K=a", "[my_k]=a&my_k=b", "x=1;my_k=a&my_k=b", "my_k=a;x=1"] {
        for path in ["/orders", "/scoped"] {
            let order = post(&format!("{path}?{query}")).line("Idempotency-Key: k");
            sidecar.ask(&order).await.refuses(400, "invalid-key");
        }
    }
    assert_eq!(backend.count(), 0);
    let order = post("/orders?my_k=a&my_key=b&x=1;y=2");
    assert!(!sidecar.ask(&order).await.is_replay());
    assert!(sidecar.ask(&order).await.is_replay());
}

/// The given parts between boundaries.
fn parts(parts: &[&str]) -> String {
    let parts: String = parts.iter().map(|part| format!("--b\r\n{part}\r\n")).collect();
    format!("{parts}--b--\r\n")
}

const KEY: &str = "Content-Disposition: form-data; name=\"my_k\"\r\n\r\na";

#[tokio::test]
async fn forms_in_parts_that_can_be_read_in_two_ways_are_refused() {
    let multipart = |body: &str| typed("multipart/form-data; boundary=b", body);
    let part = |head: &str| multipart(&parts(&[KEY, &format!("{head}\r\n\r\nhunter2")]));
    let disposition = |more: &str| part(&format!("Content-Disposition: form-data; {more}"));
    let whole = parts(&[KEY]);
    let other = parts(&[&KEY.replace("\r\n\r\na", "\r\n\r\nhunter2")]);
    let requests = [
        disposition("NAME=\"my_k\""),
        disposition("name='my_k'"),
        disposition("name*=utf-8''my_k"),
        disposition("name*0=\"my_k\""),
        disposition("name=\"x\"; name=\"my_k\""),
        disposition("name=\"\\my_k\""),
        disposition("filename=\"x\\\"; name=\"my_k\""),
        disposition("name=\"my.k\""),
        disposition("name=\"my_k[]\""),
        disposition("name=\"my_k\""),
        part("Content-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"my_k\""),
        part("Content-Disposition: attachment; name=\"my_k\""),
        part("X: y\nContent-Disposition: form-data; name=\"my_k\"\r\nContent-Disposition: form-data; name=\"x\""),
        part("Content-Disposition: form-data; name=\"x\"\r\nContent-Transfer-Encoding: base64"),
        part("Content-Disposition: form-data; name=\"x\"\r\nContent-Transfer-Encoding: quoted-printable"),
        part("Content-Disposition: form-data; name=\"x\"\r\nContent-Length: 900"),
        // Parts before the first boundary, and behind the last.
        multipart(&format!("--c\r\n{KEY}\r\n--c--\r\n{whole}")),
        multipart(&format!("{whole}{other}")),
        multipart(&whole.replace("\r\na\r\n", &format!("\r\na\n--b\n{KEY}\r\n"))),
        // Two boundaries.
        typed("multipart/form-data; boundary=b; boundary=c", format!("{whole}{}", other.replace("--b", "--c"))),
        typed("multipart/form-data; boundary=b; BOUNDARY=c", &whole),
        typed("multipart/form-data; xboundary=c; boundary=b", &whole),
        // The key in a charset that parsers read differently.
        multipart(&parts(&[&KEY.replace("\r\n\r\n", "\r\nContent-Type: text/plain; charset=utf-7\r\n\r\n")])),
        typed("multipart/form-data; boundary=b; charset=utf-16", &whole),
        multipart(&parts(&[KEY, "Content-Disposition: form-data; name=\"_charset_\"\r\n\r\nutf-7"])),
    ];
    refused("form:my_k", &requests).await;
}

/// Byte by byte as these clients write them.
#[tokio::test]
async fn forms_in_parts_of_real_clients_are_guarded() {
    let dot_net = "--2f6b3f6c-8a5f-4a53-9f0e-6a3a3d1b7c11\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=my_k\r\n\r\na\r\n\
         --2f6b3f6c-8a5f-4a53-9f0e-6a3a3d1b7c11\r\n\
         Content-Disposition: form-data; name=file; filename=\"=?utf-8?B?bmHDr3ZlLnR4dA==?=\"; filename*=utf-8''na%C3%AFve.txt\r\n\r\n\
         \u{89}PNG\r\n--2f6b3f6c-8a5f-4a53-9f0e-6a3a3d1b7c11--\r\n";
    let retrofit = "--7b4d5a51-7d5c-4d0c-8f9e-9f8f4b3f7c3d\r\n\
         Content-Disposition: form-data; name=\"my_k\"\r\nContent-Transfer-Encoding: binary\r\n\
         Content-Type: text/plain; charset=UTF-8\r\nContent-Length: 1\r\n\r\na\r\n\
         --7b4d5a51-7d5c-4d0c-8f9e-9f8f4b3f7c3d\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Transfer-Encoding: binary\r\n\
         Content-Type: image/png\r\nContent-Length: 4\r\n\r\n\u{89}PNG\r\n--7b4d5a51-7d5c-4d0c-8f9e-9f8f4b3f7c3d--\r\n";
    let apache = "--kbQ9V4rYvq0S8xQ_e-7u\r\n\
         Content-Disposition: form-data; name=\"my_k\"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\n\
         Content-Transfer-Encoding: 8bit\r\n\r\na\r\n--kbQ9V4rYvq0S8xQ_e-7u\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\nContent-Type: application/octet-stream\r\n\
         Content-Transfer-Encoding: binary\r\n\r\n\u{89}PNG\r\n--kbQ9V4rYvq0S8xQ_e-7u--\r\n";
    let spring = "--Yl8Ju9E\r\nContent-Disposition: form-data; name=\"my_k\"\r\nContent-Type: text/plain;charset=UTF-8\r\n\
         Content-Length: 1\r\n\r\na\r\n--Yl8Ju9E--\r\n";
    let browser = "------WebKitFormBoundary7MA4YWxkTrZu0gW\r\nContent-Disposition: form-data; name=\"my_k\"\r\n\r\na\r\n\
         ------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"C:\\fakepath\\a%22b.png\"\r\n\
         Content-Type: image/png\r\n\r\n\u{89}PNG\r\n------WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n";
    let guzzle = "--5f3\r\nContent-Disposition: form-data; name=\"my_k\"\r\nContent-Length: 1\r\n\r\na\r\n--5f3--\r\n";
    let requests = [
        ("multipart/form-data; boundary=\"2f6b3f6c-8a5f-4a53-9f0e-6a3a3d1b7c11\"", dot_net),
        ("multipart/form-data; boundary=7b4d5a51-7d5c-4d0c-8f9e-9f8f4b3f7c3d", retrofit),
        ("multipart/form-data; boundary=kbQ9V4rYvq0S8xQ_e-7u", apache),
        ("multipart/form-data; boundary=kbQ9V4rYvq0S8xQ_e-7u; charset=ISO-8859-1", apache),
        ("multipart/form-data;boundary=Yl8Ju9E;charset=UTF-8", spring),
        ("multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW", browser),
        ("multipart/form-data; boundary=5f3", guzzle),
    ];
    // Latin-1, so that a file has bytes that are no UTF-8.
    let latin_1 = |text: &str| text.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect::<Vec<_>>();
    guarded("form:my_k", &requests.map(|(media, body)| typed(media, latin_1(body)))).await;
}

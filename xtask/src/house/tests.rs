//! Small houses with one fault each.

use std::path::Path;

use super::order::Order;
use super::package::Package;
use super::rooms::Room;

const ORDER: Order = Order {
    rooms: &[
        Room { folder: "low", only: None },
        Room { folder: "alone", only: Some(&[]) },
        Room { folder: "high", only: None },
    ],
    wings: &[("high", &["cellar", "attic"])],
};

/// What is wrong in packages made of these files. A package is a folder with a src/lib.rs or a
/// src/main.rs.
fn faults(files: &[(&str, &str)]) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let mut packages: Vec<Package> = Vec::new();
    for (path, text) in files {
        let file = root.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        let (folder, within) = path.split_once('/').unwrap();
        if within == "src/lib.rs" || within == "src/main.rs" {
            let library = (within == "src/lib.rs").then(|| file.clone());
            let programs = if library.is_none() { vec![file] } else { Vec::new() };
            let name = format!("a-{folder}");
            packages.push(Package { name, folder: folder.into(), library, programs });
        }
    }
    super::check(root.path(), &packages, ORDER).unwrap()
}

/// The faults of one package, whose lib.rs declares the modules `a` and `b` and has `root` besides.
fn of_two(root: &str, a: &str, b: &str) -> Vec<String> {
    let root = format!("mod a; mod b; {root}");
    faults(&[("low/src/lib.rs", &root), ("low/src/a.rs", a), ("low/src/b.rs", b)])
}

#[track_caller]
fn assert_circle(faults: &[String], lines: &[&str]) {
    let [fault] = faults else { panic!("{faults:#?}") };
    assert!(fault.contains("files import each other"), "{fault}");
    for line in lines {
        assert!(fault.contains(line), "{fault}\nhas no {line}");
    }
}

const BOTH: [&str; 2] = ["low/src/a.rs imports low/src/b.rs:", "low/src/b.rs imports low/src/a.rs:"];

#[test]
fn imports_that_run_one_way_are_no_fault() {
    let none: [String; 0] = [];
    assert_eq!(of_two("pub use a::A;", "use crate::b::B; pub struct A(B);", "pub struct B;"), none);
}

#[test]
fn two_files_that_import_each_other_are_named_with_the_names_and_lines() {
    let found = of_two(
        "",
        "use crate::b::B;\npub struct A(B);",
        "pub struct B;\n\nuse super::a::{self as x, A as C};",
    );
    assert_circle(&found, &BOTH);
    assert!(found[0].contains("imports low/src/b.rs: B (line 2)"), "{}", found[0]);
    assert!(found[0].contains("super::a::A (line 3)"), "{}", found[0]);
}

#[test]
fn a_circle_of_three_is_found() {
    let files = [
        ("low/src/lib.rs", "mod a; mod b; mod c;"),
        ("low/src/a.rs", "use crate::b::B; pub struct A;"),
        ("low/src/b.rs", "use crate::c::C; pub struct B;"),
        ("low/src/c.rs", "use crate::a::A; pub struct C;"),
    ];
    let found = faults(&files);
    assert_circle(&found, &["3 files", "low/src/c.rs imports low/src/a.rs"]);
}

#[test]
fn a_re_export_leads_to_the_file_that_defines_the_item() {
    let root = "mod hub { pub use crate::b::*; } pub use self::a::A as Renamed;";
    assert_circle(
        &of_two(root, "use crate::hub::B; pub struct A;", "use crate::Renamed; pub struct B;"),
        &BOTH,
    );
    // The file with the re-exports is not part of the circle.
    assert_circle(
        &of_two("pub use b::B;", "use crate::B; pub struct A;", "use crate::a::A; pub struct B;"),
        &["2 files"],
    );
}

#[test]
fn paths_inline_count_wherever_they_stand() {
    let uses = [
        "pub fn f() { crate::b::g(); }",
        "pub fn f() -> Option<crate::b::B> { None }",
        "pub fn f(x: u8) { match x { super::b::LIMIT => {} _ => {} } }",
        "pub struct S; impl From<super::b::B> for S { fn from(_: super::b::B) -> S { S } }",
        "pub struct S; impl crate::b::Trait for S {}",
        "pub fn f<T: crate::b::Trait>(_: T) {}",
        "pub fn f() { let _ = crate::b::B { x: 1 }; }",
        "pub fn f() { let _ = <crate::b::B as Default>::default(); }",
        "pub fn f() { let _ = <u8 as crate::b::Trait>::NAME; }",
        "pub fn f() { let _ = crate::b::Kind::One; }",
        "pub fn f() { use crate::b as it; it::g(); }",
        "pub fn f() { let _ = std::mem::size_of::<crate::b::B>(); }",
        "pub fn f() { assert_eq!(1, crate::b::g(), \"{}\", 2); }",
        "pub fn f() { let _ = vec![0..super::b::LIMIT]; }",
        "use super::*; pub fn f() { b::g(); }",
    ];
    let b = "pub struct B { x: u8 } pub const LIMIT: u8 = 1; pub trait Trait { const NAME: u8 = 1; \
             } pub enum Kind { One } \
             pub fn g() { crate::a::back(); }";
    for code in uses {
        assert_circle(&of_two("", &format!("{code} pub fn back() {{}}"), b), &BOTH);
    }
}

#[test]
fn macros_count_where_they_are_called_and_where_they_name_a_path() {
    let exported = "#[macro_export] macro_rules! shout { () => { $crate::a::write() } }";
    assert_circle(&of_two("", "pub fn write() { crate::shout!(); }", exported), &BOTH);
    let imported = "macro_rules! shout { ($e:expr) => { $crate::a::write($e) } } pub(crate) use shout;";
    assert_circle(&of_two("", "use crate::b::shout; pub fn write() { shout!(1); }", imported), &BOTH);
    let textual = "macro_rules! shout { () => { crate::a::write() } }";
    let files = [
        ("low/src/lib.rs", "#[macro_use] mod b; mod a;"),
        ("low/src/a.rs", "pub fn write() { shout!(); }"),
        ("low/src/b.rs", textual),
    ];
    assert_circle(&faults(&files), &BOTH);
}

#[test]
fn what_a_macro_defines_belongs_to_the_file_that_calls_it() {
    let b = "macro_rules! make { ($n:ident) => { pub struct $n; } } make!(B); use crate::a::A;";
    assert_circle(&of_two("", "use crate::b::B; pub struct A;", b), &BOTH);
}

#[test]
fn a_child_that_uses_its_parents_items_and_a_parent_that_uses_the_childs_are_a_circle() {
    let child = "use super::Error; pub fn f() -> Result<(), Error> { Ok(()) }";
    let files = |parent: &'static str| {
        [("low/src/lib.rs", "mod p;"), ("low/src/p.rs", parent), ("low/src/p/c.rs", child)]
    };
    let found = faults(&files("mod c; pub struct Error; pub fn g() { let _ = c::f(); }"));
    assert_circle(
        &found,
        &[
            "low/src/p.rs imports low/src/p/c.rs: c::f (line 1)",
            "low/src/p/c.rs imports low/src/p.rs: Error (line 1)",
        ],
    );
    // A parent that only declares and re-exports may hold what its children use.
    assert!(faults(&files("mod c; pub struct Error; pub use c::f;")).is_empty());
}

#[test]
fn code_for_tests_does_not_count() {
    let a = "use crate::b::B; pub struct A(B);";
    for b in [
        "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
        "pub struct B; #[cfg(test)] use crate::a::A;",
        "pub struct B; impl B { #[cfg(all(test, unix))] fn f() -> crate::a::A { todo!() } }",
        "pub struct B; #[cfg(test)] fn f() -> crate::a::A { todo!() }",
    ] {
        assert!(of_two("", a, b).is_empty(), "{b}");
    }
    assert_circle(&of_two("", a, "pub struct B; #[cfg(not(test))] use crate::a::A;"), &BOTH);
}

#[test]
fn names_that_only_look_alike_do_not_count() {
    let a = "use crate::b::B; pub struct A(B); pub fn g() {}";
    for b in [
        "pub struct B; pub fn f(x: std::ops::Range<u8>) { let g = x; g.start; }",
        "pub struct B; pub fn f() { fn g() {} g(); }",
        "pub struct B; use std::fmt; pub fn f(_: fmt::Error) {}",
        "pub struct B; mod g {} pub fn f(b: B) { b.g(); format!(\"{}\", b.a); }",
        "pub struct B; impl B { fn f() { Self::g(); } fn g() {} }",
    ] {
        assert!(of_two("pub use a::g;", a, b).is_empty(), "{b}");
    }
    // `use a::{self}` is the module and not the function beside it.
    let root = "pub fn b() { a::g(); }";
    assert!(
        of_two(root, "use crate::b::{self, B}; pub fn g() { b::f(); }", "pub struct B; pub fn f() {}")
            .is_empty()
    );
}

#[test]
fn files_are_found_where_the_compiler_finds_them() {
    let files = [
        (
            "low/src/lib.rs",
            "#[path = \"odd/name.rs\"] mod a; mod deep; mod inline { mod inner; #[path = \"x.rs\"] mod y; }",
        ),
        ("low/src/odd/name.rs", "mod below; use crate::deep::b::B; pub struct A;"),
        ("low/src/odd/below.rs", ""),
        ("low/src/deep/mod.rs", "pub mod b;"),
        ("low/src/deep/b.rs", "mod under; use crate::a::A; pub struct B;"),
        ("low/src/deep/b/under.rs", ""),
        ("low/src/inline/inner.rs", ""),
        ("low/src/inline/x.rs", ""),
    ];
    assert_circle(&faults(&files), &["low/src/odd/name.rs imports low/src/deep/b.rs"]);
}

#[test]
fn a_file_that_is_missing_or_no_rust_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let error = |text: &str| {
        let file = root.path().join("lib.rs");
        std::fs::write(&file, text).unwrap();
        let package =
            Package { name: "p".into(), folder: "p".into(), library: Some(file), programs: Vec::new() };
        format!("{:#}", super::check(root.path(), &[package], ORDER).unwrap_err())
    };
    assert!(error("mod gone;").ends_with("lib.rs: no file for `mod gone`"));
    assert!(error("fn f( {}").contains("lib.rs:1:"));
}

#[test]
fn a_package_imports_those_below_it_alone() {
    let files = |low: &'static str, alone: &'static str, high: &'static str| {
        [("low/src/lib.rs", low), ("alone/src/lib.rs", alone), ("high/src/lib.rs", high)]
    };
    assert!(faults(&files("pub struct L;", "", "use a_low::L; pub use a_alone as other;")).is_empty());
    let found = faults(&files("pub fn f() { a_high::g(); }", "", "pub fn g() {}"));
    assert_eq!(found, ["low/src/lib.rs imports high, but high stands above low: a_high::g (line 1)"]);
    let found = faults(&files("pub struct L;", "use ::a_low::L;", ""));
    assert_eq!(found, [r#"alone/src/lib.rs imports low, but alone may import [] alone: a_low::L (line 1)"#]);
    let found = faults(&[("low/src/lib.rs", ""), ("new/src/lib.rs", "use a_low::x;")]);
    assert!(found[0].contains("new is missing from the list of rooms"), "{found:?}");
}

#[test]
fn a_wing_imports_those_below_it_alone_and_nobody_imports_the_root() {
    let files = |cellar: &'static str| {
        [
            ("high/src/main.rs", "mod cellar; mod attic; pub struct R; fn main() { attic::top(); }"),
            ("high/src/cellar/mod.rs", "mod wine;"),
            ("high/src/cellar/wine.rs", cellar),
            ("high/src/attic.rs", "use crate::cellar::x; pub fn top() {}"),
        ]
    };
    assert!(faults(&files("")).is_empty());
    let found = faults(&files("fn f() { crate::attic::top(); }"));
    assert!(found.iter().any(|fault| {
        fault
            == "high/src/cellar/wine.rs imports high/src/attic.rs, but attic stands above cellar: \
                  crate::attic::top (line 1)"
    }));
    let found = faults(&files("use crate::R;"));
    assert!(
        found.iter().any(|fault| fault.contains("but the root stands above cellar: crate::R (line 1)")),
        "{found:?}"
    );
    let found = faults(&[("high/src/main.rs", "mod roof;"), ("high/src/roof.rs", "")]);
    assert_eq!(found, ["high: roof is missing from the list of wings in xtask/src/house/rooms.rs"]);
}

#[test]
fn the_list_of_rooms_names_each_once() {
    for (nth, room) in Order::HOUSE.rooms.iter().enumerate() {
        let later = &Order::HOUSE.rooms[nth + 1..];
        assert!(
            later.iter().all(|other| Path::new(other.folder) != Path::new(room.folder)),
            "{}",
            room.folder
        );
        for known in room.only.into_iter().flatten() {
            assert!(Order::HOUSE.rooms[..nth].iter().any(|other| other.folder == *known), "{known}");
        }
    }
}

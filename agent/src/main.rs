//! tmp
mod host; mod kernel; mod scope;
fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let host = host::HostRoot::new("/");
    let paths: Vec<_> = std::env::args_os().skip(1).map(Into::into).collect();
    let (support, btf) = kernel::support::Support::detect(&host, !paths.is_empty())?;
    let t = std::time::Instant::now();
    let offsets = kernel::offsets::resolve(&btf)?; drop(btf);
    eprintln!("{offsets:?} {support:?} {:?}", t.elapsed());
    let scope = scope::Scope::new(&paths, &support.hierarchies)?;
    let options = kernel::options::Options { ring_bytes: 2<<20, args_bytes: 8192, pending_connects: 16384, cgroup_counters: 16384, throttle: [0;3], kinds: u32::MAX, log_level: 0 };
    let mut k = kernel::Kernel::load(&options, &support, offsets, Some(&scope))?;
    eprintln!("loaded {:?} seeds {}", t.elapsed(), k.seeds.len());
    let mut s = k.take_sources(&options)?;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(8);
    while std::time::Instant::now() < end {
        s.rings.cycle(|ring, rec| { eprintln!("{ring:?} {} kind {} {}", rec.len(), rec[5], String::from_utf8_lossy(&rec[136..]).replace('\0', "|")); });
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    eprintln!("{:#?}", s.books.ledgers());
    let t = s.books.totals()?; eprintln!("{t:?}");
    Ok(())
}

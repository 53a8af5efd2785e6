//! A program for tests and measurements that needs no library: `payload WORD [NUMBER]`.
#![no_std]
#![no_main]

include!("bare.rs");

#[unsafe(no_mangle)]
unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: `stack` is what the kernel gave _start.
    let (word, number) = unsafe { (argument(stack, 1).unwrap_or(b"true"), argument(stack, 2).unwrap_or(b"0")) };
    let number = decimal(number);
    match word {
        b"exit" => exit(number),
        b"sleep" => sleep(),
        b"abort" => abort(),
        b"memory" => memory(number),
        b"fork" => fork(number),
        b"print" => print(number),
        b"flood" => flood(),
        b"listen" => listen(number),
        b"answer" => answer(number),
        b"mark" => mark(number),
        b"write" => write(),
        b"serve" => serve(number),
        b"spin" => loop {},
        _ => exit(0),
    }
}

fn sleep() -> ! {
    let hour = [3600_usize, 0];
    loop {
        call(nr::NANOSLEEP, &raw const hour as usize, 0, 0);
    }
}

fn abort() -> ! {
    call(nr::KILL, 2, 6, 0);
    exit(99)
}

/// Touches `mib` MiB, then exits with 0.
fn memory(mib: usize) -> ! {
    // SAFETY: a fresh private mapping at an address of the kernel's choice.
    let at = unsafe { syscall(nr::MMAP, [0, mib << 20, 3, 0x22, usize::MAX, 0]) };
    if at < 0 {
        exit(98);
    }
    let mut offset = 0;
    while offset < mib << 20 {
        // SAFETY: inside the mapping made above.
        unsafe { ((at as usize + offset) as *mut u8).write_volatile(1) };
        offset += 4096;
    }
    exit(0)
}

/// Forks up to `wanted` sleeping children; exits with how many it got.
fn fork(wanted: usize) -> ! {
    let mut made = 0;
    while made < wanted {
        // SAFETY: a plain fork: no shared memory, no new stack.
        let pid = unsafe { syscall(nr::CLONE, [17, 0, 0, 0, 0, 0]) };
        if pid == 0 {
            sleep();
        }
        if pid < 0 {
            exit(made);
        }
        made += 1;
    }
    exit(made)
}

/// Prints `lines` numbered lines of 100 bytes, then one to standard error.
fn print(lines: usize) -> ! {
    let mut line = [b'.'; 100];
    line[99] = b'\n';
    let mut n = 0;
    while n < lines {
        let (mut value, mut at) = (n, 8);
        while at > 0 {
            at -= 1;
            line[at] = b'0' + (value % 10) as u8;
            value /= 10;
        }
        call(nr::WRITE, 1, &raw const line as usize, 100);
        n += 1;
    }
    let last = *b"last words";
    call(nr::WRITE, 2, &raw const last as usize, last.len());
    exit(0)
}

/// Writes as many lines as it can, for ever: each costs whoever keeps them more than it costs here.
fn flood() -> ! {
    let lines = [b'\n'; 4096];
    loop {
        call(nr::WRITE, 1, &raw const lines as usize, lines.len());
    }
}

/// Holds the busy mark open for so many seconds, then sleeps on without it.
fn mark(seconds: usize) -> ! {
    const AT_FDCWD: usize = -100_isize as usize;
    const WRITE_ONLY: usize = 1;
    let path = c"/dev/bellows/busy".as_ptr() as usize;
    // SAFETY: the path is a C string.
    let fd = unsafe { syscall(nr::OPENAT, [AT_FDCWD, path, WRITE_ONLY, 0, 0, 0]) };
    if fd < 0 {
        exit(96);
    }
    let word = *b"working";
    call(nr::WRITE, fd as usize, &raw const word as usize, word.len());
    let time = [seconds, 0];
    call(nr::NANOSLEEP, &raw const time as usize, 0, 0);
    call(nr::CLOSE, fd as usize, 0, 0);
    sleep()
}

/// Leaves an empty file in the root directory.
fn write() -> ! {
    const AT_FDCWD: usize = -100_isize as usize;
    const WRITE_ONLY_CREATE: usize = 0o101;
    let path = c"/written".as_ptr() as usize;
    // SAFETY: the path is a C string.
    let fd = unsafe { syscall(nr::OPENAT, [AT_FDCWD, path, WRITE_ONLY_CREATE, 0o644, 0, 0]) };
    exit(if fd < 0 { 95 } else { 0 })
}

/// Accepts connections on every address at `port` and closes them after one greeting.
fn listen(port: usize) -> ! {
    accept(port, greet)
}

/// As [`listen`], and reads what the peer says before: a number is how to end.
fn serve(port: usize) -> ! {
    accept(port, |peer| {
        greet(peer);
        let mut said = [0_u8; 8];
        let length = call(nr::READ, peer, &raw mut said as usize, 8);
        if length > 0 {
            let said = said.get(..length as usize).unwrap_or(b"0");
            let last = *b"last words ";
            call(nr::WRITE, 1, &raw const last as usize, last.len());
            call(nr::WRITE, 1, said.as_ptr() as usize, said.len());
            exit(decimal(said));
        }
    })
}

/// Answers one request of each connection, whatever it is.
fn answer(port: usize) -> ! {
    accept(port, |peer| {
        let mut request = [0_u8; 4096];
        call(nr::READ, peer, &raw mut request as usize, request.len());
        let answer = *b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
        call(nr::WRITE, peer, &raw const answer as usize, answer.len());
    })
}

fn greet(peer: usize) {
    let greeting = *b"hello\n";
    call(nr::WRITE, peer, &raw const greeting as usize, greeting.len());
}

fn accept(port: usize, then: fn(usize)) -> ! {
    let socket = call(nr::SOCKET, 2, 1, 0) as usize;
    let address = [2, 0, (port >> 8) as u8, port as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if call(nr::BIND, socket, &raw const address as usize, 16) < 0 || call(nr::LISTEN, socket, 16, 0) < 0 {
        exit(97);
    }
    loop {
        let peer = call(nr::ACCEPT, socket, 0, 0);
        if peer >= 0 {
            then(peer as usize);
            call(nr::CLOSE, peer as usize, 0, 0);
        }
    }
}

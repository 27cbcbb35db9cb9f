/* The plainest good C server for length-prefixed messages: one thread, level-triggered epoll, reads
 * of 64 KiB into one buffer that all connections share, a big-endian 32-bit length before each
 * message. What a connection keeps between reads is the part of a message that has not ended yet.
 *
 *     epoll count|echo [ADDR:PORT]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PREFIX = 4, READ = 64 * 1024, LIMIT = 8 * 1024 * 1024, BACKLOG = 4096, EVENTS = 256 };

struct connection {
    int fd;
    unsigned char prefix[PREFIX]; /* its first `have` bytes, while `have` is below PREFIX */
    uint32_t have;                /* bytes of the unfinished frame that have come, prefix included */
    uint32_t size;                /* bytes of the unfinished frame in all, once its prefix is whole */
    char *frame;                  /* echo: the unfinished frame, if more than a part of its prefix */
    char *replies;                /* echo: what the socket would not take */
    uint32_t written, unwritten;  /* echo: of those replies */
};

static unsigned char buffer[2 * READ]; /* what is left of a frame of at most READ, then a read */
static uint64_t messages;
static int poller, listener;
static bool paused; /* accepting, because there are no file descriptors left */
static volatile sig_atomic_t stopped;

static void stop(int signal) {
    (void)signal;
    stopped = 1;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int operation, int fd, uint32_t events, void *data) {
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(poller, operation, fd, &event) < 0) die("epoll_ctl");
}

static void drop(struct connection *c) {
    close(c->fd);
    free(c->frame);
    free(c->replies);
    free(c);
    if (paused) watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    paused = false;
}

static void accept_all(void) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            if (errno == EMFILE || errno == ENFILE) {
                watch(EPOLL_CTL_DEL, listener, 0, NULL);
                paused = true;
            }
            return;
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        c->fd = fd;
        watch(EPOLL_CTL_ADD, fd, EPOLLIN, c);
    }
}

/* The size of a frame, prefix included, or 0 if it is over the limit. */
static uint32_t frame_size(const unsigned char *prefix) {
    uint32_t length;
    memcpy(&length, prefix, PREFIX);
    length = ntohl(length);
    if (length <= LIMIT) return PREFIX + length;
    fprintf(stderr, "a message of %u bytes is over the limit\n", length);
    return 0;
}

/* Each of these returns false when the connection is to be closed. */

static bool count(struct connection *c) {
    ssize_t n = read(c->fd, buffer, READ);
    if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR);
    const unsigned char *at = buffer, *end = buffer + n;
    while (at < end) {
        if (c->have == 0) { /* the frames that are whole */
            while (end - at >= PREFIX) {
                uint32_t size = frame_size(at);
                if (!size) return false;
                if (size > end - at) break;
                at += size;
                messages++;
            }
        }
        while (c->have < PREFIX && at < end) c->prefix[c->have++] = *at++;
        if (c->have < PREFIX) break;
        if (c->have == PREFIX && !(c->size = frame_size(c->prefix))) return false;
        uint32_t take = c->size - c->have;
        if (take > end - at) take = end - at;
        at += take;
        c->have += take;
        if (c->have == c->size) {
            c->have = 0;
            messages++;
        }
    }
    return true;
}

/* Writes what it can of the replies that are kept. */
static bool reply_rest(struct connection *c) {
    ssize_t n = send(c->fd, c->replies + c->written, c->unwritten, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    c->written += n;
    c->unwritten -= n;
    if (c->unwritten > 0) return true;
    free(c->replies);
    c->replies = NULL;
    watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
    return true;
}

/* Writes replies. What the socket does not take is kept, and nothing is read until it is gone.
 * `owned` is the allocation that the bytes begin, if they are not in the shared buffer. */
static bool reply(struct connection *c, const unsigned char *bytes, uint32_t length, char *owned) {
    ssize_t n = send(c->fd, bytes, length, MSG_NOSIGNAL);
    bool failed = n < 0 && errno != EAGAIN && errno != EINTR;
    if (n < 0) n = 0;
    if (failed || n == length) {
        free(owned);
        return !failed;
    }
    c->unwritten = length - n;
    c->written = owned ? n : 0;
    if (!owned) {
        owned = malloc(c->unwritten);
        if (!owned) die("malloc");
        memcpy(owned, bytes + n, c->unwritten);
    }
    c->replies = owned;
    watch(EPOLL_CTL_MOD, c->fd, EPOLLOUT, c);
    return true;
}

static bool echo(struct connection *c) {
    if (c->unwritten > 0) return reply_rest(c);

    if (c->frame && c->size > READ) { /* a large frame is read into its place */
        ssize_t n = read(c->fd, c->frame + c->have, c->size - c->have);
        if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR);
        c->have += n;
        if (c->have < c->size) return true;
        char *frame = c->frame;
        c->frame = NULL;
        c->have = 0;
        messages++;
        return reply(c, (unsigned char *)frame, c->size, frame);
    }

    ssize_t n = read(c->fd, buffer + c->have, READ);
    if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR);
    memcpy(buffer, c->frame ? (unsigned char *)c->frame : c->prefix, c->have);
    free(c->frame);
    c->frame = NULL;

    const unsigned char *at = buffer, *end = buffer + c->have + n;
    uint32_t size = 0;
    while (end - at >= PREFIX) {
        size = frame_size(at);
        if (!size) return false;
        if (size > end - at) break;
        at += size;
        messages++;
    }
    /* What has begun is kept. */
    uint32_t whole = at - buffer;
    c->have = end - at;
    if (c->have < PREFIX) {
        memcpy(c->prefix, at, c->have);
    } else {
        c->size = size;
        c->frame = malloc(size);
        if (!c->frame) die("malloc");
        memcpy(c->frame, at, c->have);
    }
    return whole == 0 || reply(c, buffer, whole, NULL);
}

static struct sockaddr_in parse_address(const char *text) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[INET_ADDRSTRLEN];
    unsigned short port;
    if (sscanf(text, "%15[0-9.]:%hu", host, &port) != 2 ||
        inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        fprintf(stderr, "not an address and port: %s\n", text);
        exit(2);
    }
    address.sin_port = htons(port);
    return address;
}

static void listen_on(const char *text) {
    struct sockaddr_in address = parse_address(text);
    socklen_t length = sizeof address;
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0) die("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, length) < 0) die("bind");
    if (listen(listener, BACKLOG) < 0) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    char host[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
    fprintf(stderr, "listening on %s:%u\n", host, ntohs(address.sin_port));
}

int main(int argc, char **argv) {
    bool echoes = argc > 1 && !strcmp(argv[1], "echo");
    if (argc < 2 || argc > 3 || (!echoes && strcmp(argv[1], "count"))) {
        fprintf(stderr, "usage: %s count|echo [ADDR:PORT]\n", argv[0]);
        return 2;
    }
    bool (*readable)(struct connection *) = echoes ? echo : count;

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    /* SIGTERM comes while waiting, and only then. */
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);

    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) die("epoll_create1");
    listen_on(argc > 2 ? argv[2] : "127.0.0.1:0");
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);

    struct epoll_event events[EVENTS];
    while (!stopped) {
        int n = epoll_pwait(poller, events, EVENTS, -1, &before);
        if (n < 0 && errno != EINTR) die("epoll_pwait");
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c)
                accept_all();
            else if (!readable(c))
                drop(c);
        }
    }
    fprintf(stderr, "%llu messages\n", (unsigned long long)messages);
    return 0;
}

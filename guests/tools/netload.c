/* netload.c - TCP load for tests and benches; static, runs in guests and in the lab's machine

     netload serve PORT                         answers the three others, for ever
     netload send ADDRESS PORT MIB [check]      stream to the server, until it has read all of it
     netload receive ADDRESS PORT MIB [check]   stream from the server
     netload ask ADDRESS PORT COUNT [SIZE]      COUNT requests of SIZE bytes (1), each answered by
                                                as many before the next one is sent
   A stream is a sequence of blocks that differ; with `check` its reader compares every byte, so that
   not only damage but also loss, repetition and disorder are seen. ADDRESS is IPv4 in numbers.
   Prints one line "name=value ...": bytes or requests, errors (wrong blocks), ns. Exit status 1
   when a block was wrong or the connection failed; nothing waits for more than 30 s. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 65536, WORDS = BLOCK / 8, PATIENCE = 30 /* seconds */ };
enum op { SEND = 1, RECEIVE, ASK };

/* What a client says first. Both ends are little-endian. */
struct header {
    uint32_t op, check;
    uint64_t count; /* blocks or requests */
    uint64_t size;  /* of a request */
};

static uint64_t block[WORDS], expected[WORDS];

static void die(const char *what)
{
    fprintf(stderr, "netload: %s: %s\n", what, errno ? strerror(errno) : "closed by the peer");
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void send_all(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n < 0)
            die("send");
        p += n;
        len -= (size_t)n;
    }
}

/* False when the peer closed before the first byte. */
static int receive_all(int fd, void *data, size_t len)
{
    char *p = data;
    size_t left = len;

    while (left) {
        ssize_t n = recv(fd, p, left, MSG_WAITALL);
        if (n == 0 && left == len)
            return 0;
        errno = n == 0 ? 0 : errno;
        if (n <= 0)
            die("receive");
        p += n;
        left -= (size_t)n;
    }
    return 1;
}

/* The words of all blocks alike, but for the first, which is the block's number. */
static void pattern(uint64_t *words)
{
    uint64_t x = 0x9e3779b97f4a7c15;

    for (int i = 0; i < WORDS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        words[i] = x;
    }
}

static void stream_out(int fd, uint64_t nblocks)
{
    pattern(block);
    for (uint64_t i = 0; i < nblocks; i++) {
        block[0] = i;
        send_all(fd, block, sizeof block);
    }
}

/* Returns how many blocks were wrong. */
static uint64_t stream_in(int fd, uint64_t nblocks, int check)
{
    uint64_t errors = 0;

    pattern(expected);
    for (uint64_t i = 0; i < nblocks; i++) {
        if (!receive_all(fd, block, sizeof block))
            die("receive");
        expected[0] = i;
        errors += check && memcmp(block, expected, sizeof block) != 0;
    }
    return errors;
}

static void serve_client(int fd)
{
    struct header h;
    uint64_t errors;

    if (!receive_all(fd, &h, sizeof h))
        return;
    if (h.op == SEND) {
        errors = stream_in(fd, h.count, (int)h.check);
        send_all(fd, &errors, sizeof errors);
    } else if (h.op == RECEIVE) {
        stream_out(fd, h.count);
    } else if (h.op == ASK && h.size <= sizeof block) {
        while (receive_all(fd, block, h.size))
            send_all(fd, block, h.size);
    }
}

static void prepare(int fd)
{
    struct timeval patience = {.tv_sec = PATIENCE};
    int one = 1;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* One process for each client. */
static int serve(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0), client;

    signal(SIGCHLD, SIG_IGN);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 64))
        die("listen");
    while ((client = accept(fd, NULL, NULL)) >= 0) {
        pid_t pid = fork();
        if (pid < 0)
            die("fork");
        if (!pid) {
            prepare(client);
            serve_client(client);
            exit(0);
        }
        close(client);
    }
    die("accept");
    return 1;
}

/* Tries for some seconds: the server or the link may be coming up. */
static int dial(const char *address, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

    if (inet_pton(AF_INET, address, &a.sin_addr) != 1) {
        fprintf(stderr, "netload: '%s' is no IPv4 address\n", address);
        exit(2);
    }
    for (int tries = 0;; tries++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (!connect(fd, (struct sockaddr *)&a, sizeof a)) {
            prepare(fd);
            return fd;
        }
        if (tries == 50)
            die("connect");
        close(fd);
        usleep(200000);
    }
}

static int stream(int fd, struct header h)
{
    uint64_t errors = 0, start = now();

    send_all(fd, &h, sizeof h);
    if (h.op == RECEIVE) {
        errors = stream_in(fd, h.count, (int)h.check);
    } else {
        stream_out(fd, h.count);
        if (!receive_all(fd, &errors, sizeof errors))
            die("receive");
    }
    printf("bytes=%llu errors=%llu ns=%llu\n", (unsigned long long)h.count * BLOCK,
           (unsigned long long)errors, (unsigned long long)(now() - start));
    return errors != 0;
}

static int ask(int fd, struct header h)
{
    uint64_t errors = 0, start = now();

    send_all(fd, &h, sizeof h);
    pattern(expected);
    for (uint64_t i = 0; i < h.count; i++) {
        expected[0] = i;
        send_all(fd, expected, h.size);
        if (!receive_all(fd, block, h.size))
            die("receive");
        errors += memcmp(block, expected, h.size) != 0;
    }
    printf("requests=%llu errors=%llu ns=%llu\n", (unsigned long long)h.count,
           (unsigned long long)errors, (unsigned long long)(now() - start));
    return errors != 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: netload serve PORT | send|receive ADDRESS PORT MIB [check] | "
                    "ask ADDRESS PORT COUNT [SIZE]\n");
    return 2;
}

int main(int argc, char **argv)
{
    const char *op = argc > 1 ? argv[1] : "";
    struct header h = {.size = 1};

    if (argc == 3 && !strcmp(op, "serve"))
        return serve((uint16_t)atoi(argv[2]));
    if (argc < 5 || argc > 6)
        return usage();
    h.count = strtoull(argv[4], NULL, 0);
    if (!strcmp(op, "ask")) {
        h.op = ASK;
        h.size = argc == 6 ? strtoull(argv[5], NULL, 0) : 1;
        if (h.size < 1 || h.size > sizeof block) {
            fprintf(stderr, "netload: requests have 1 to %d bytes\n", BLOCK);
            return 2;
        }
        return ask(dial(argv[2], (uint16_t)atoi(argv[3])), h);
    }
    if (strcmp(op, "send") && strcmp(op, "receive"))
        return usage();
    h.op = strcmp(op, "send") ? RECEIVE : SEND;
    h.count *= (1 << 20) / BLOCK;
    h.check = argc == 6;
    return stream(dial(argv[2], (uint16_t)atoi(argv[3])), h);
}

/* wire.c - the other end of a guest's console, for tests; static, runs in the lab's machine

     wire dial PATH                             a client of a Unix socket: standard input goes there,
                                                what comes back to standard output, until both ended
     wire term SIZE WORD SIZE COMMAND...        runs a command on a terminal of that size (80x25),
                                                which gets the other size once WORD was printed
   The exit status of term is the command's. Nothing waits for more than two minutes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "wire: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_all(int fd, const char *p, size_t len)
{
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0)
            die("write");
        p += n;
        len -= (size_t)n;
    }
}

static int dial(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct pollfd p[2] = {{.fd = 0, .events = POLLIN}, {.events = POLLIN}};
    static char buf[65536];

    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    p[1].fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (p[1].fd < 0 || connect(p[1].fd, (struct sockaddr *)&a, sizeof a))
        die(path);
    while (p[1].fd >= 0 && poll(p, 2, -1) > 0)
        for (int i = 0; i < 2; i++) {
            ssize_t n = p[i].revents ? read(p[i].fd, buf, sizeof buf) : 1;
            if (p[i].revents && n > 0)
                write_all(i ? 1 : p[1].fd, buf, (size_t)n);
            else if (n <= 0 && i == 0)
                shutdown(p[1].fd, SHUT_WR);
            if (n <= 0)
                p[i].fd = -1;
        }
    return 0;
}

static void resize(int fd, const char *size)
{
    struct winsize w = {0};

    if (sscanf(size, "%hux%hu", &w.ws_col, &w.ws_row) != 2 || ioctl(fd, TIOCSWINSZ, &w))
        die(size);
}

/* Copies what the command prints, and looks for the word where it came in one piece. */
static int term(char **argv)
{
    int status, fd = posix_openpt(O_RDWR | O_NOCTTY);
    char buf[4096];
    ssize_t n;
    pid_t pid;

    if (fd < 0 || grantpt(fd) || unlockpt(fd))
        die("terminal");
    resize(fd, argv[0]);
    pid = fork();
    if (pid < 0)
        die("fork");
    if (!pid) {
        int tty;
        setsid();
        tty = open(ptsname(fd), O_RDWR);
        if (tty < 0 || ioctl(tty, TIOCSCTTY, 0))
            die("terminal");
        for (int i = 0; i < 3; i++)
            dup2(tty, i);
        execvp(argv[3], argv + 3);
        die(argv[3]);
    }
    while ((n = read(fd, buf, sizeof buf)) > 0) {
        write_all(1, buf, (size_t)n);
        if (memmem(buf, (size_t)n, argv[1], strlen(argv[1])))
            resize(fd, argv[2]);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int main(int argc, char **argv)
{
    alarm(120);
    if (argc == 3 && strcmp(argv[1], "dial") == 0)
        return dial(argv[2]);
    if (argc > 5 && strcmp(argv[1], "term") == 0)
        return term(argv + 2);
    fprintf(stderr, "usage: see the top of wire.c\n");
    return 2;
}

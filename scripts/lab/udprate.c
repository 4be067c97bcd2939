// Datagrams offered at a rate in one network namespace, and counted in another.
//
// usage: udprate FROM_NS TO_NS ADDRESS PORT BYTES DATAGRAMS_PER_SECOND SECONDS    (rate 0: as fast as can be)
// prints: "SENT RECEIVED", datagrams
//
// Sixteen datagrams a system call, as a program does that sends many; the kernel does not cut super-frames (no UDP_SEGMENT).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 16, LARGEST = 9000 };

static atomic_bool over;
static long received;

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

// A datagram socket that stays in the namespace it was made in.
static int socket_in(const char *name, int family) {
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0) { perror(path); exit(1); }
    close(fd);
    int s = socket(family, SOCK_DGRAM, 0), size = 8 << 20;
    if (s < 0) { perror("socket"); exit(1); }
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    return s;
}

static void fill(struct mmsghdr *m, struct iovec *parts, char *bytes, size_t each, int shared) {
    memset(m, 0, BATCH * sizeof *m);
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){bytes + (shared ? 0 : i * each), each};
        m[i].msg_hdr.msg_iov = &parts[i];
        m[i].msg_hdr.msg_iovlen = 1;
    }
}

static void *count(void *socket) {
    static char bytes[BATCH * LARGEST];
    struct iovec parts[BATCH];
    struct mmsghdr m[BATCH];
    int s = *(int *)socket;
    struct timeval wait = {0, 50000};
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    fill(m, parts, bytes, LARGEST, 0);
    while (!atomic_load(&over)) {
        int n = recvmmsg(s, m, BATCH, MSG_WAITFORONE, NULL);
        if (n > 0) received += n;
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 8) { fprintf(stderr, "usage: udprate FROM_NS TO_NS ADDRESS PORT BYTES RATE SECONDS\n"); return 2; }
    int family = strchr(argv[3], ':') ? AF_INET6 : AF_INET, port = atoi(argv[4]);
    size_t size = atoi(argv[5]);
    double rate = atof(argv[6]), seconds = atof(argv[7]);
    if (size < 1 || size > LARGEST) { fprintf(stderr, "1 to %d bytes\n", LARGEST); return 2; }
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)}, to_six = six;
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)}, to_four = four;
    if (inet_pton(family, argv[3], family == AF_INET ? (void *)&to_four.sin_addr : (void *)&to_six.sin6_addr) != 1) {
        fprintf(stderr, "not an address: %s\n", argv[3]); return 2;
    }
    socklen_t len = family == AF_INET ? sizeof four : sizeof six;

    int in = socket_in(argv[2], family), out = socket_in(argv[1], family);
    if (bind(in, family == AF_INET ? (void *)&four : (void *)&six, len) < 0) { perror("bind"); return 1; }
    if (connect(out, family == AF_INET ? (void *)&to_four : (void *)&to_six, len) < 0) { perror("connect"); return 1; }
    pthread_t counter;
    pthread_create(&counter, NULL, count, &in);

    static char bytes[LARGEST];
    struct iovec parts[BATCH];
    struct mmsghdr m[BATCH];
    fill(m, parts, bytes, size, 1);
    long sent = 0;
    double begin = now();
    for (double t = begin; t < begin + seconds; t = now()) {
        if (rate > 0 && sent > (t - begin) * rate) { sched_yield(); continue; }
        int n = sendmmsg(out, m, BATCH, 0);
        if (n > 0) sent += n;
        else if (errno == ECONNREFUSED) continue; // of an earlier one
        else if (errno != ENOBUFS && errno != EAGAIN) { perror("send"); return 1; }
    }
    usleep(300000); // what is on its way
    atomic_store(&over, true);
    pthread_join(counter, NULL);
    printf("%ld %ld\n", sent, received);
    return 0;
}

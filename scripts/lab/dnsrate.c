// Queries for A records from one socket in a network namespace, so many on their way at once, and their answers.
//
// usage: dnsrate NS SERVER NAMES SECONDS
// prints: "SENT ANSWERED BAD": names are c0, c1, … below NAMES; an answer is good if it has an address and no error
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WINDOW = 64, BATCH = 32, LARGEST = 512 };

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

// Writes a query and returns its length.
static size_t query(unsigned char *to, unsigned id, unsigned number) {
    static const unsigned char head[] = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, tail[] = {0, 0, 1, 0, 1};
    memcpy(to, head, sizeof head);
    to[0] = id >> 8, to[1] = id;
    int len = sprintf((char *)to + 13, "c%u", number);
    to[12] = len;
    memcpy(to + 13 + len, tail, sizeof tail);
    return 13 + len + sizeof tail;
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "usage: %s NS SERVER NAMES SECONDS\n", argv[0]); return 2; }
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", argv[1]);
    int ns = open(path, O_RDONLY | O_CLOEXEC);
    if (ns < 0 || setns(ns, CLONE_NEWNET) < 0) { perror(path); return 1; }
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(53)};
    inet_pton(AF_INET, argv[2], &server.sin_addr);
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct timeval patience = {.tv_usec = 100000};
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(s, (struct sockaddr *)&server, sizeof server) < 0) { perror("connect"); return 1; }

    static unsigned char bytes[BATCH][LARGEST];
    struct iovec pieces[BATCH];
    struct mmsghdr list[BATCH];
    memset(list, 0, sizeof list);
    for (int n = 0; n < BATCH; n++)
        pieces[n].iov_base = bytes[n], list[n].msg_hdr.msg_iov = &pieces[n], list[n].msg_hdr.msg_iovlen = 1;
    unsigned names = atoi(argv[3]), next = 0;
    long sent = 0, answered = 0, bad = 0, under_way = 0;
    double end = now() + atof(argv[4]);
    while (now() < end) {
        int room = WINDOW - under_way < BATCH ? WINDOW - under_way : BATCH;
        for (int n = 0; n < room; n++, next++) pieces[n].iov_len = query(bytes[n], next, next * 7919u % names);
        int done = room > 0 ? sendmmsg(s, list, room, 0) : 0;
        if (done > 0) sent += done, under_way += done;
        for (int n = 0; n < BATCH; n++) pieces[n].iov_len = LARGEST;
        int got = recvmmsg(s, list, BATCH, MSG_WAITFORONE, NULL);
        // Whatever has not come by now was lost.
        if (got <= 0) { under_way = 0; continue; }
        for (int n = 0; n < got; n++) {
            unsigned char *m = bytes[n];
            if (list[n].msg_len > 12 && (m[2] & 0x80) && !(m[3] & 15) && (m[6] | m[7])) answered++;
            else bad++;
        }
        under_way = under_way > got ? under_way - got : 0;
    }
    printf("%ld %ld %ld\n", sent, answered, bad);
}

/* The microcontroller's code on a machine that has a terminal, to be compared with Python's.
 *
 *     mcu_host codec   lines from stdin, a line each to stdout:
 *         e TYPE SEQUENCE PAYLOAD   the frame's bytes
 *         d BYTES                   the frames that end in them: TYPE:SEQUENCE:PAYLOAD …, then
 *                                   damaged and lost so far; one receiver hears all lines
 *         f BYTES                   of every flip of a single bit: how many flips, how many frames
 *     mcu_host link    lines "MILLISECONDS BYTES" from stdin: what the device says to them
 *     mcu_host port    stdin and stdout are the line, the clock is the real one
 *
 * Bytes are hexadecimal, `-` is none. */
#define _POSIX_C_SOURCE 200809L

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fer_link.h"

#define MOST 262144

static char line[2 * MOST + 64];
static uint8_t bytes[MOST];

static size_t from_hex(const char *text)
{
    size_t count = 0;
    unsigned int value;
    while (count < MOST && sscanf(text + 2 * count, "%2x", &value) == 1) {
        bytes[count++] = (uint8_t)value;
    }
    return count;
}

static void to_hex(const uint8_t *from, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    size_t i;
    for (i = 0; i < count; i++) {
        putchar(digits[from[i] >> 4]);
        putchar(digits[from[i] & 15]);
    }
}

static void encode_line(char *text)
{
    fer_frame frame;
    uint8_t out[FER_MAX_ENCODED + 1];
    char *after;
    size_t count;
    frame.type = (uint8_t)strtoul(text, &after, 10);
    frame.sequence = (uint16_t)strtoul(after, &after, 10);
    count = from_hex(after + 1);
    frame.length = (uint8_t)count;
    memcpy(frame.payload, bytes, count <= FER_MAX_PAYLOAD ? count : 0);
    to_hex(out, fer_encode(&frame, out));
    putchar('\n');
}

static void decode_line(fer_receiver *receiver, const char *text)
{
    fer_frame frame;
    size_t count = from_hex(text), i;
    for (i = 0; i < count; i++) {
        if (fer_receive(receiver, bytes[i], &frame)) {
            printf("%u:%u:", frame.type, frame.sequence);
            to_hex(frame.payload, frame.length);
            putchar(' ');
        }
    }
    printf("%lu %lu\n", (unsigned long)receiver->damaged, (unsigned long)receiver->lost);
}

static void flip_line(const char *text)
{
    size_t count = from_hex(text), bit, i;
    unsigned long passed = 0;
    fer_frame frame;
    for (bit = 0; bit < 8 * count; bit++) {
        fer_receiver receiver;
        fer_receiver_init(&receiver);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        for (i = 0; i < count; i++) {
            passed += (unsigned long)fer_receive(&receiver, bytes[i], &frame);
        }
        passed += (unsigned long)fer_receive(&receiver, 0, &frame);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    printf("%lu %lu\n", (unsigned long)(8 * count), passed);
}

static void codec(void)
{
    fer_receiver receiver;
    fer_receiver_init(&receiver);
    while (fgets(line, sizeof line, stdin)) {
        switch (line[0]) {
        case 'e': encode_line(line + 2); break;
        case 'd': decode_line(&receiver, line + 2); break;
        case 'f': flip_line(line + 2); break;
        default: exit(2);
        }
    }
}

static void print_hex(void *context, const uint8_t *said, size_t count)
{
    (void)context;
    to_hex(said, count);
}

static void link_lines(void)
{
    fer_link box;
    int begun = 0;
    while (fgets(line, sizeof line, stdin)) {
        char *after;
        uint32_t now_ms = (uint32_t)strtoul(line, &after, 10);
        size_t count = from_hex(after + 1), i;
        if (!begun) {
            fer_link_init(&box, "simulated", print_hex, NULL, now_ms);
            begun = 1;
        }
        for (i = 0; i < count; i++) {
            fer_link_receive(&box, bytes[i], now_ms);
        }
        fer_link_poll(&box, now_ms);
        printf(" %d %d %d %d %d", box.connected, box.ready, box.total, box.face_count, box.brightness);
        for (i = 0; i < box.face_count; i++) {
            const fer_face *face = &box.faces[i];
            printf(" %lu:%u:%u:%u", (unsigned long)face->track, face->label, face->confidence, face->held_ds);
        }
        putchar('\n');
    }
}

static void write_out(void *context, const uint8_t *said, size_t count)
{
    (void)context;
    if (write(STDOUT_FILENO, said, count) < 0) {
        exit(1);
    }
}

static uint32_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u);
}

static void port(void)
{
    fer_link box;
    struct pollfd line_in = {STDIN_FILENO, POLLIN, 0};
    fer_link_init(&box, "in C", write_out, NULL, clock_ms());
    for (;;) {
        if (poll(&line_in, 1, 10) > 0) {
            ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes), i;
            if (count <= 0) {
                exit(0);
            }
            for (i = 0; i < count; i++) {
                fer_link_receive(&box, bytes[i], clock_ms());
            }
        }
        fer_link_poll(&box, clock_ms());
    }
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "codec") == 0) {
        codec();
    } else if (count == 2 && strcmp(arguments[1], "link") == 0) {
        link_lines();
    } else if (count == 2 && strcmp(arguments[1], "port") == 0) {
        port();
    } else {
        return 2;
    }
    return 0;
}

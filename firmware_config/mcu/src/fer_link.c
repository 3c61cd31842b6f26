#include "fer_link.h"

#include <string.h>

#define HEAD_SIZE 4u
#define CRC_SIZE 4u
#define FACE_SIZE 8u

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value & 0xFFu);
    at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, (uint16_t)(value & 0xFFFFu));
    put16(at + 2, (uint16_t)(value >> 16));
}

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | ((uint16_t)at[1] << 8));
}

static uint32_t get32(const uint8_t *at)
{
    return get16(at) | ((uint32_t)get16(at + 2) << 16);
}

/* The CRC-32 of Ethernet, bit by bit: a frame is short, and a table would take memory. */
static uint32_t crc32(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xFFFFFFFFu;
    size_t i;
    int bit;
    for (i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (bit = 0; bit < 8; bit++) {
            crc = (crc & 1u) ? (crc >> 1) ^ 0xEDB88320u : crc >> 1;
        }
    }
    return crc ^ 0xFFFFFFFFu;
}

size_t fer_encode(const fer_frame *frame, uint8_t *out)
{
    /* The frame is laid out behind the first byte of COBS, which then replaces each zero. */
    uint8_t *body = out + 1;
    size_t count = HEAD_SIZE + (size_t)frame->length;
    size_t code = 0, i;
    if (frame->length > FER_MAX_PAYLOAD) {
        return 0;
    }
    body[0] = frame->type;
    put16(body + 1, frame->sequence);
    body[3] = frame->length;
    memcpy(body + HEAD_SIZE, frame->payload, frame->length);
    put32(body + count, crc32(body, count));
    count += CRC_SIZE;
    for (i = 1; i <= count; i++) {
        if (out[i] == 0) {
            out[code] = (uint8_t)(i - code);
            code = i;
        }
    }
    out[code] = (uint8_t)(count + 1 - code);
    out[count + 1] = 0;
    return count + 2;
}

/* The frame between two delimiters, which is undone in place; 1 if it is whole and right. */
static int decode(uint8_t *bytes, size_t count, fer_frame *frame)
{
    size_t code = 0;
    uint8_t *body = bytes + 1;
    if (count < 1 + HEAD_SIZE + CRC_SIZE) {
        return 0;
    }
    while (code < count) {
        size_t next = code + bytes[code];
        if (next > count) {
            return 0;
        }
        bytes[code] = 0;
        code = next;
    }
    count -= 1;
    if (body[3] > FER_MAX_PAYLOAD || count != HEAD_SIZE + body[3] + CRC_SIZE) {
        return 0;
    }
    if (get32(body + count - CRC_SIZE) != crc32(body, count - CRC_SIZE)) {
        return 0;
    }
    frame->type = body[0];
    frame->sequence = get16(body + 1);
    frame->length = body[3];
    memcpy(frame->payload, body + HEAD_SIZE, frame->length);
    return 1;
}

void fer_receiver_init(fer_receiver *receiver)
{
    memset(receiver, 0, sizeof *receiver);
}

static void count_lost(fer_receiver *receiver, const fer_frame *frame)
{
    uint16_t missing = (uint16_t)(frame->sequence - receiver->expected);
    /* More than half the circle is a sender that began anew, as one that says hello did. */
    if (receiver->counting && (frame->type & 0x7Fu) != FER_HELLO && missing < 0x8000u) {
        receiver->lost += missing;
    }
    receiver->counting = 1;
    receiver->expected = (uint16_t)(frame->sequence + 1u);
}

int fer_receive(fer_receiver *receiver, uint8_t byte, fer_frame *frame)
{
    int whole;
    if (byte != 0) {
        if (receiver->filled < FER_MAX_ENCODED) {
            receiver->buffer[receiver->filled++] = byte;
        } else {
            receiver->overlong = 1;
        }
        return 0;
    }
    if (receiver->filled == 0) {
        return 0; /* two delimiters in a row */
    }
    whole = !receiver->overlong && decode(receiver->buffer, receiver->filled, frame);
    receiver->filled = 0;
    receiver->overlong = 0;
    if (whole) {
        count_lost(receiver, frame);
    } else {
        receiver->damaged += 1;
    }
    return whole;
}

/* Has `moment` come? Right across the clock's wrap-around. */
static int due(uint32_t now_ms, uint32_t moment_ms)
{
    return (uint32_t)(now_ms - moment_ms) < 0x80000000u;
}

static void say(fer_link *link, uint8_t kind, const uint8_t *payload, size_t length)
{
    fer_frame frame;
    uint8_t bytes[FER_MAX_ENCODED + 1];
    frame.type = (uint8_t)(kind | FER_FROM_DEVICE);
    frame.sequence = link->sequence++;
    frame.length = (uint8_t)length;
    if (length > 0) {
        memcpy(frame.payload, payload, length);
    }
    link->write(link->context, bytes, fer_encode(&frame, bytes));
}

static void say_hello(fer_link *link, uint8_t answer)
{
    uint8_t payload[2 + FER_MAX_NAME];
    size_t length = strlen(link->name);
    if (length > FER_MAX_NAME) {
        length = FER_MAX_NAME;
    }
    payload[0] = FER_VERSION;
    payload[1] = answer;
    memcpy(payload + 2, link->name, length);
    say(link, FER_HELLO, payload, 2 + length);
}

static uint16_t at_most_16(uint32_t value)
{
    return value > 0xFFFFu ? 0xFFFFu : (uint16_t)value;
}

static void say_status(fer_link *link, uint32_t now_ms)
{
    uint8_t payload[9];
    payload[0] = link->brightness;
    put32(payload + 1, link->uptime_s);
    put16(payload + 5, at_most_16(link->receiver.damaged));
    put16(payload + 7, at_most_16(link->receiver.lost));
    say(link, FER_STATUS, payload, sizeof payload);
    link->status_ms = now_ms + FER_HEARTBEAT_MS;
}

static void acknowledge(fer_link *link, const fer_frame *command, uint8_t result)
{
    uint8_t payload[3];
    put16(payload, command->sequence);
    payload[2] = result;
    say(link, FER_ACKNOWLEDGE, payload, sizeof payload);
}

static void forget(fer_link *link)
{
    link->connected = 0;
    link->ready = 0;
    link->total = 0;
    link->face_count = 0;
}

/* Takes over who is in view, all or nothing; 1 if the payload is of the right form. */
static int take_faces(fer_link *link, const fer_frame *frame)
{
    size_t count, i;
    if (frame->length < 1 || (frame->length - 1u) % FACE_SIZE != 0) {
        return 0;
    }
    count = (frame->length - 1u) / FACE_SIZE;
    for (i = 0; i < count; i++) {
        const uint8_t *at = frame->payload + 1 + i * FACE_SIZE;
        if (at[4] >= FER_LABELS || at[5] > 100) {
            return 0;
        }
    }
    link->total = frame->payload[0];
    link->face_count = (uint8_t)count;
    for (i = 0; i < count; i++) {
        const uint8_t *at = frame->payload + 1 + i * FACE_SIZE;
        link->faces[i].track = get32(at);
        link->faces[i].label = at[4];
        link->faces[i].confidence = at[5];
        link->faces[i].held_ds = get16(at + 6);
    }
    return 1;
}

static void take_hello(fer_link *link, const fer_frame *frame, uint32_t now_ms)
{
    if (frame->length < 2) {
        return;
    }
    if (!frame->payload[1]) {
        say_hello(link, 1);
    }
    if (frame->payload[0] != FER_VERSION) {
        forget(link);
    } else if (!link->connected) {
        link->connected = 1;
        link->status_ms = now_ms;
    }
}

static void take(fer_link *link, const fer_frame *frame, uint32_t now_ms)
{
    if (frame->type & FER_FROM_DEVICE) {
        return; /* an echo */
    }
    link->heard_ms = now_ms;
    if (frame->type == FER_HELLO) {
        take_hello(link, frame, now_ms);
        return;
    }
    if (!link->connected) {
        return;
    }
    switch (frame->type) {
    case FER_HEARTBEAT:
        if (frame->length == 1) {
            link->ready = frame->payload[0] != 0;
        }
        break;
    case FER_FACES:
        (void)take_faces(link, frame); /* a wrong one is not answered: the next comes soon */
        break;
    case FER_BRIGHTNESS:
        if (frame->length == 1 && frame->payload[0] <= 100) {
            link->brightness = frame->payload[0];
            acknowledge(link, frame, FER_RESULT_DONE);
        } else {
            acknowledge(link, frame, FER_RESULT_BAD_VALUE);
        }
        break;
    case FER_QUERY:
        if (frame->length == 0) {
            link->status_ms = now_ms;
            acknowledge(link, frame, FER_RESULT_DONE);
        } else {
            acknowledge(link, frame, FER_RESULT_BAD_VALUE);
        }
        break;
    default:
        acknowledge(link, frame, FER_RESULT_UNKNOWN);
        break;
    }
}

void fer_link_init(fer_link *link, const char *name, fer_write write, void *context, uint32_t now_ms)
{
    memset(link, 0, sizeof *link);
    fer_receiver_init(&link->receiver);
    link->brightness = 100;
    link->name = name;
    link->write = write;
    link->context = context;
    link->hello_ms = now_ms;
    link->uptime_ms_before = now_ms;
}

void fer_link_receive(fer_link *link, uint8_t byte, uint32_t now_ms)
{
    fer_frame frame;
    if (fer_receive(&link->receiver, byte, &frame)) {
        take(link, &frame, now_ms);
    }
}

void fer_link_poll(fer_link *link, uint32_t now_ms)
{
    while ((uint32_t)(now_ms - link->uptime_ms_before) >= 1000u) {
        link->uptime_ms_before += 1000u;
        link->uptime_s += 1;
    }
    if (link->connected && (uint32_t)(now_ms - link->heard_ms) > FER_SILENCE_MS) {
        forget(link);
        link->hello_ms = now_ms;
    }
    if (!link->connected && due(now_ms, link->hello_ms)) {
        say_hello(link, 0);
        link->hello_ms = now_ms + FER_HEARTBEAT_MS;
    }
    if (link->connected && due(now_ms, link->status_ms)) {
        say_status(link, now_ms);
    }
}

void fer_link_query(fer_link *link)
{
    if (link->connected) {
        say(link, FER_QUERY, NULL, 0);
    }
}

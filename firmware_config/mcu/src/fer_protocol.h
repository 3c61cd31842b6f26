/* Made from firmware_config/serial_protocol.py by firmware_config/mcu_header.py:
 * change it there. */
#ifndef FER_PROTOCOL_H
#define FER_PROTOCOL_H

#define FER_VERSION 1
#define FER_BAUD 115200L
#define FER_HEARTBEAT_MS 1000u
#define FER_SILENCE_MS 3000u
#define FER_MAX_PAYLOAD 64
#define FER_MAX_NAME 32
#define FER_MAX_FACES 7
#define FER_MAX_FRAME 72
#define FER_MAX_ENCODED 73
#define FER_FROM_DEVICE 0x80
#define FER_HELLO 0x01
#define FER_HEARTBEAT 0x02
#define FER_FACES 0x03
#define FER_BRIGHTNESS 0x04
#define FER_QUERY 0x05
#define FER_STATUS 0x06
#define FER_ACKNOWLEDGE 0x07
#define FER_RESULT_DONE 0
#define FER_RESULT_UNKNOWN 1
#define FER_RESULT_BAD_VALUE 2
#define FER_LABEL_ANGRY 0
#define FER_LABEL_DISGUST 1
#define FER_LABEL_FEAR 2
#define FER_LABEL_HAPPY 3
#define FER_LABEL_SAD 4
#define FER_LABEL_SURPRISE 5
#define FER_LABEL_NEUTRAL 6
#define FER_LABEL_UNCERTAIN 7
#define FER_LABEL_LOW_QUALITY 8
#define FER_LABELS 9

#endif

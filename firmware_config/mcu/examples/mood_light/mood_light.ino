/* A lamp that takes the colour of the expression of whoever is nearest, a relay that is on while
 * somebody is in view, and a button that asks the box to say again who is.
 *
 * An RGB LED on the PWM pins 9, 10 and 11, a relay on pin 7, a button from pin 2 to ground. When the
 * box falls silent, or does not do its work, everything is off: a lamp must not show a face that
 * nobody looks at. */
#include <fer_link.h>

static const uint8_t RED_PIN = 9, GREEN_PIN = 10, BLUE_PIN = 11, RELAY_PIN = 7, BUTTON_PIN = 2;

/* Red, green, blue for each label. */
static const uint8_t COLOURS[FER_LABELS][3] = {
  {255, 0, 0},     /* angry */
  {60, 160, 0},    /* disgust */
  {120, 0, 255},   /* fear */
  {255, 180, 0},   /* happy */
  {0, 0, 255},     /* sad */
  {0, 255, 200},   /* surprise */
  {120, 120, 120}, /* neutral */
  {30, 30, 30},    /* uncertain */
  {0, 0, 0},       /* low_quality */
};

static fer_link box;
static bool pressed = false;

static void to_box(void *, const uint8_t *bytes, size_t count) {
  Serial.write(bytes, count);
}

static uint8_t dimmed(uint8_t value) {
  return (uint8_t)((uint16_t)value * box.brightness / 100u);
}

static void show() {
  static const uint8_t OFF[3] = {0, 0, 0};
  const bool works = box.connected && box.ready;
  const uint8_t *colour = works && box.face_count > 0 ? COLOURS[box.faces[0].label] : OFF;
  analogWrite(RED_PIN, dimmed(colour[0]));
  analogWrite(GREEN_PIN, dimmed(colour[1]));
  analogWrite(BLUE_PIN, dimmed(colour[2]));
  digitalWrite(RELAY_PIN, works && box.total > 0 ? HIGH : LOW);
}

void setup() {
  pinMode(RED_PIN, OUTPUT);
  pinMode(GREEN_PIN, OUTPUT);
  pinMode(BLUE_PIN, OUTPUT);
  pinMode(RELAY_PIN, OUTPUT);
  pinMode(BUTTON_PIN, INPUT_PULLUP);
  Serial.begin(FER_BAUD);
  fer_link_init(&box, "mood light", to_box, NULL, millis());
}

void loop() {
  while (Serial.available() > 0) {
    fer_link_receive(&box, (uint8_t)Serial.read(), millis());
  }
  fer_link_poll(&box, millis());
  const bool down = digitalRead(BUTTON_PIN) == LOW;
  if (down && !pressed) {
    fer_link_query(&box);
  }
  pressed = down;
  show();
}

/* A program on Debian's Cyclone DDS: sends back what it gets as its own types read and write it, until its standard
   input ends. Argument: the domain. Prints `ready` and, at the end, how many messages it sent back. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "cyclone_types.h"
#include "dds/dds.h"

#define TOPICS 3
static const dds_topic_descriptor_t *TYPES[TOPICS] = {
    &sensor_msgs_msg_dds__Image__desc, &sensor_msgs_msg_dds__JointState__desc,
    &trajectory_msgs_msg_dds__JointTrajectory__desc};
static const char *NAMES[TOPICS][2] = {
    {"rt/image", "rt/image/back"}, {"rt/joints", "rt/joints/back"}, {"rt/command", "rt/command/back"}};

static dds_entity_t checked(dds_entity_t entity) {
  if (entity < 0) {
    fprintf(stderr, "%s\n", dds_strretcode(-entity));
    exit(1);
  }
  return entity;
}

int main(int count, char **arguments) {
  dds_entity_t participant = checked(dds_create_participant(count > 1 ? atoi(arguments[1]) : 0, NULL, NULL));
  dds_qos_t *qos = dds_create_qos();
  dds_qset_reliability(qos, DDS_RELIABILITY_RELIABLE, DDS_SECS(1));
  dds_qset_history(qos, DDS_HISTORY_KEEP_LAST, 100);
  dds_entity_t readers[TOPICS], writers[TOPICS];
  for (int i = 0; i < TOPICS; i++) {
    dds_entity_t there = checked(dds_create_topic(participant, TYPES[i], NAMES[i][0], NULL, NULL));
    dds_entity_t back = checked(dds_create_topic(participant, TYPES[i], NAMES[i][1], NULL, NULL));
    readers[i] = checked(dds_create_reader(participant, there, qos, NULL));
    writers[i] = checked(dds_create_writer(participant, back, qos, NULL));
  }
  puts("ready");
  fflush(stdout);
  fcntl(0, F_SETFL, O_NONBLOCK);
  int sent = 0;
  for (char byte; read(0, &byte, 1) != 0; dds_sleepfor(DDS_MSECS(1))) {
    for (int i = 0; i < TOPICS; i++) {
      void *sample[1] = {NULL};
      dds_sample_info_t information[1];
      int taken = dds_take(readers[i], sample, information, 1, 1);
      if (taken > 0 && information[0].valid_data) sent += dds_write(writers[i], sample[0]) == 0;
      if (taken > 0) dds_return_loan(readers[i], sample, taken);
    }
  }
  printf("%d\n", sent);
  dds_delete(participant);
  return 0;
}

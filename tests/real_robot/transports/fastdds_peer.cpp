// A program on Debian's Fast DDS: sends back what it gets as fastcdr reads and writes it, until its standard input ends.
// Argument: the domain. Prints `ready` and, at the end, how many messages it sent back. Names are those of ROS 2's
// rmw_fastrtps.
#include <fcntl.h>
#include <unistd.h>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fastcdr/Cdr.h>
#include <fastdds/dds/domain/DomainParticipant.hpp>
#include <fastdds/dds/domain/DomainParticipantFactory.hpp>
#include <fastdds/dds/publisher/DataWriter.hpp>
#include <fastdds/dds/publisher/Publisher.hpp>
#include <fastdds/dds/subscriber/DataReader.hpp>
#include <fastdds/dds/subscriber/SampleInfo.hpp>
#include <fastdds/dds/subscriber/Subscriber.hpp>
#include <fastdds/dds/topic/TopicDataType.hpp>
#include <fastdds/rtps/transport/UDPv4TransportDescriptor.h>
#include <string>
#include <thread>
#include <vector>

using namespace eprosima::fastdds::dds;
using eprosima::fastcdr::Cdr;
using eprosima::fastcdr::FastBuffer;
using eprosima::fastrtps::rtps::InstanceHandle_t;
using eprosima::fastrtps::rtps::SerializedPayload_t;

struct Header {
  int32_t sec;
  uint32_t nanosec;
  std::string frame_id;
};

struct Image {
  static constexpr const char *name = "sensor_msgs::msg::dds_::Image_";
  Header header;
  uint32_t height, width;
  std::string encoding;
  uint8_t is_bigendian;
  uint32_t step;
  std::vector<uint8_t> data;
  template <class Go> void each(Go go) {
    go(header.sec), go(header.nanosec), go(header.frame_id), go(height), go(width), go(encoding), go(is_bigendian);
    go(step), go(data);
  }
};

struct JointState {
  static constexpr const char *name = "sensor_msgs::msg::dds_::JointState_";
  Header header;
  std::vector<std::string> names;
  std::vector<double> position, velocity, effort;
  template <class Go> void each(Go go) {
    go(header.sec), go(header.nanosec), go(header.frame_id), go(names), go(position), go(velocity), go(effort);
  }
};

template <class Message> struct Type : TopicDataType {
  Type() {
    setName(Message::name);
    m_typeSize = 1 << 20;
    m_isGetKeyDefined = false;
  }
  bool serialize(void *data, SerializedPayload_t *payload) override {
    FastBuffer buffer(reinterpret_cast<char *>(payload->data), payload->max_size);
    Cdr cdr(buffer, Cdr::LITTLE_ENDIANNESS, Cdr::DDS_CDR);
    payload->encapsulation = CDR_LE;
    cdr.serialize_encapsulation();
    static_cast<Message *>(data)->each([&](auto &field) { cdr << field; });
    payload->length = static_cast<uint32_t>(cdr.getSerializedDataLength());
    return true;
  }
  bool deserialize(SerializedPayload_t *payload, void *data) override {
    FastBuffer buffer(reinterpret_cast<char *>(payload->data), payload->length);
    Cdr cdr(buffer, Cdr::DEFAULT_ENDIAN, Cdr::DDS_CDR);
    cdr.read_encapsulation();
    static_cast<Message *>(data)->each([&](auto &field) { cdr >> field; });
    return true;
  }
  std::function<uint32_t()> getSerializedSizeProvider(void *) override {
    return [] { return uint32_t(1 << 20); };
  }
  void *createData() override { return new Message(); }
  void deleteData(void *data) override { delete static_cast<Message *>(data); }
  bool getKey(void *, InstanceHandle_t *, bool) override { return false; }
};

template <class Message> struct Echo {
  DataReader *reader;
  DataWriter *writer;
  Echo(DomainParticipant *participant, Publisher *publisher, Subscriber *subscriber, const std::string &topic) {
    TypeSupport type(new Type<Message>());
    type.register_type(participant);
    auto *there = participant->create_topic(topic, Message::name, TOPIC_QOS_DEFAULT);
    auto *back = participant->create_topic(topic + "/back", Message::name, TOPIC_QOS_DEFAULT);
    const auto memory = eprosima::fastrtps::rtps::PREALLOCATED_WITH_REALLOC_MEMORY_MODE;
    DataReaderQos read;
    read.reliability().kind = RELIABLE_RELIABILITY_QOS;
    read.history().depth = 100;
    read.endpoint().history_memory_policy = memory;
    reader = subscriber->create_datareader(there, read);
    DataWriterQos write;
    write.durability().kind = VOLATILE_DURABILITY_QOS;
    write.history().depth = 100;
    write.publish_mode().kind = ASYNCHRONOUS_PUBLISH_MODE;
    write.endpoint().history_memory_policy = memory;
    writer = publisher->create_datawriter(back, write);
  }
  int pass() {
    Message message;
    SampleInfo information;
    int sent = 0;
    while (reader->take_next_sample(&message, &information) == ReturnCode_t::RETCODE_OK)
      if (information.valid_data) sent += writer->write(&message);
    return sent;
  }
};

int main(int count, char **arguments) {
  DomainParticipantQos qos;
  auto loopback = std::make_shared<eprosima::fastdds::rtps::UDPv4TransportDescriptor>();
  loopback->interfaceWhiteList.push_back("127.0.0.1");
  qos.transport().use_builtin_transports = false;
  qos.transport().user_transports.push_back(loopback);
  auto *factory = DomainParticipantFactory::get_instance();
  auto *participant = factory->create_participant(count > 1 ? atoi(arguments[1]) : 0, qos);
  if (participant == nullptr) return 1;
  auto *publisher = participant->create_publisher(PUBLISHER_QOS_DEFAULT);
  auto *subscriber = participant->create_subscriber(SUBSCRIBER_QOS_DEFAULT);
  Echo<Image> images(participant, publisher, subscriber, "rt/image");
  Echo<JointState> joints(participant, publisher, subscriber, "rt/joints");
  puts("ready");
  fflush(stdout);
  fcntl(0, F_SETFL, O_NONBLOCK);
  int sent = 0;
  for (char byte; read(0, &byte, 1) != 0; std::this_thread::sleep_for(std::chrono::milliseconds(1)))
    sent += images.pass() + joints.pass();
  printf("%d\n", sent);
  participant->delete_contained_entities();
  factory->delete_participant(participant);
  return 0;
}

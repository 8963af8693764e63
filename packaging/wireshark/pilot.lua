-- Wireshark dissector for captures of `pilotctl capture`: overlay packets in clear, link type USER0 (147).
--
-- Install: copy it to the folder that Wireshark names under Help > About > Folders > Personal Lua Plugins, usually
-- ~/.local/lib/wireshark/plugins. Or for once: tshark -X lua_script:pilot.lua -r out.pcapng
-- Fields are named pilot.*, for example: pilot.stream && pilot.port == 80
--
-- In front of each packet stand 24 bytes that tell how it went (docs/capture.md); all numbers are big-endian.

local META_LEN = 24
local HEADER_LEN = 34
local CHECKSUM_AT = 30

local pilot = Proto("pilot", "Pilot Protocol")

local directions = { [1] = "received", [2] = "sent" }
local carriers = { [0] = "own", [1] = "direct", [2] = "relay" }
local families = { [0] = "none", [4] = "IPv4", [6] = "IPv6" }
local protocols = { [1] = "stream", [2] = "datagram", [3] = "control" }
local ports = {
  [0] = "ping", [1] = "control", [4] = "path", [7] = "echo", [53] = "nameserver", [80] = "http", [443] = "secure",
  [444] = "handshake", [1000] = "stdio", [1001] = "data exchange", [1002] = "event stream", [1003] = "tasks",
}
local options = {
  [1] = "max segment", [2] = "SACK blocks", [3] = "half-close", [4] = "window unit", [5] = "max outstanding",
  [6] = "data",
}
local path_messages = { [1] = "candidates", [2] = "MTU probe", [3] = "MTU reply" }
local candidate_kinds = { [0] = "host", [1] = "observed", [2] = "mapped" }

local f = {
  meta_version = ProtoField.uint8("pilot.meta.version", "Version"),
  direction = ProtoField.uint8("pilot.direction", "Direction", base.DEC, directions),
  carrier = ProtoField.uint8("pilot.path", "Path", base.DEC, carriers),
  encrypted = ProtoField.bool("pilot.encrypted", "Sealed on its way", 8, nil, 0x01),
  family = ProtoField.uint8("pilot.endpoint.family", "Family", base.DEC, families),
  endpoint4 = ProtoField.ipv4("pilot.endpoint.ip", "Endpoint"),
  endpoint6 = ProtoField.ipv6("pilot.endpoint.ipv6", "Endpoint"),
  endpoint_port = ProtoField.uint16("pilot.endpoint.port", "UDP port"),

  version = ProtoField.uint8("pilot.version", "Version", base.DEC, nil, 0xF0),
  flags = ProtoField.uint8("pilot.flags", "Flags", base.HEX, nil, 0x0F),
  syn = ProtoField.bool("pilot.flags.syn", "SYN", 8, nil, 0x01),
  ack_flag = ProtoField.bool("pilot.flags.ack", "ACK", 8, nil, 0x02),
  fin = ProtoField.bool("pilot.flags.fin", "FIN", 8, nil, 0x04),
  rst = ProtoField.bool("pilot.flags.rst", "RST", 8, nil, 0x08),
  protocol = ProtoField.uint8("pilot.protocol", "Protocol", base.DEC, protocols),
  length = ProtoField.uint16("pilot.length", "Payload length"),
  src = ProtoField.string("pilot.src", "Source"),
  src_network = ProtoField.uint16("pilot.src.network", "Source network"),
  src_node = ProtoField.uint32("pilot.src.node", "Source node"),
  dst = ProtoField.string("pilot.dst", "Destination"),
  dst_network = ProtoField.uint16("pilot.dst.network", "Destination network"),
  dst_node = ProtoField.uint32("pilot.dst.node", "Destination node"),
  src_port = ProtoField.uint16("pilot.srcport", "Source port"),
  dst_port = ProtoField.uint16("pilot.dstport", "Destination port"),
  port = ProtoField.uint16("pilot.port", "Source or destination port"),
  seq = ProtoField.uint32("pilot.seq", "Sequence number"),
  ack = ProtoField.uint32("pilot.ack", "Acknowledgement number"),
  window = ProtoField.uint16("pilot.window", "Window", base.DEC),
  checksum = ProtoField.uint32("pilot.checksum", "Checksum", base.HEX),
  checksum_ok = ProtoField.bool("pilot.checksum.ok", "Checksum is right"),
  payload = ProtoField.bytes("pilot.payload", "Payload"),

  stream = ProtoField.bool("pilot.stream", "Stream segment"),
  datagram = ProtoField.bool("pilot.datagram", "Datagram"),
  control = ProtoField.bool("pilot.control", "Control"),
  keepalive = ProtoField.bool("pilot.keepalive", "Keepalive"),
  ping = ProtoField.bool("pilot.ping", "Ping"),
  pong = ProtoField.bool("pilot.pong", "Answer to a ping"),

  sack_count = ProtoField.uint8("pilot.sack.count", "SACK blocks"),
  sack_left = ProtoField.uint32("pilot.sack.left", "From"),
  sack_right = ProtoField.uint32("pilot.sack.right", "To"),

  options_version = ProtoField.uint8("pilot.options.version", "Version"),
  option_kind = ProtoField.uint8("pilot.option.kind", "Option", base.DEC, options),
  option_length = ProtoField.uint8("pilot.option.length", "Length"),
  option_value = ProtoField.bytes("pilot.option.value", "Value"),
  max_segment = ProtoField.uint16("pilot.option.max_segment", "Largest segment"),
  sack_blocks = ProtoField.uint8("pilot.option.sack_blocks", "Blocks in a selective acknowledgement"),
  half_close = ProtoField.bool("pilot.option.half_close", "One direction may end alone"),
  window_unit = ProtoField.uint16("pilot.option.window_unit", "Bytes per unit of the window"),
  max_outstanding = ProtoField.uint32("pilot.option.max_outstanding", "Segments that may be unacknowledged"),
  early_data = ProtoField.bytes("pilot.option.data", "First bytes of the stream"),

  path_type = ProtoField.uint8("pilot.path_message", "Path message", base.DEC, path_messages),
  path_token = ProtoField.uint64("pilot.path_message.token", "Token", base.HEX),
  generation = ProtoField.uint64("pilot.path_message.generation", "Generation"),
  candidate_kind = ProtoField.uint8("pilot.candidate.kind", "Candidate", base.DEC, candidate_kinds),
  candidate4 = ProtoField.ipv4("pilot.candidate.ip", "Address"),
  candidate6 = ProtoField.ipv6("pilot.candidate.ipv6", "Address"),
  candidate_port = ProtoField.uint16("pilot.candidate.port", "UDP port"),
}
pilot.fields = f

local truncated = ProtoExpert.new("pilot.truncated", "Ends too early", expert.group.MALFORMED, expert.severity.ERROR)
local unknown = ProtoExpert.new("pilot.unknown", "Unknown version", expert.group.UNDECODED, expert.severity.WARN)
local wrong_checksum =
  ProtoExpert.new("pilot.checksum.bad", "Wrong checksum", expert.group.CHECKSUM, expert.severity.ERROR)
pilot.experts = { truncated, unknown, wrong_checksum }

-- Exclusive or and shifts without the operators of Lua 5.3: Wireshark before 4.4 has Lua 5.2, later ones 5.4.
local xor, shift, both
if bit32 then
  xor, shift, both = bit32.bxor, bit32.rshift, bit32.band
else
  local compiled = load("return function(a, b) return a ~ b end, function(a, n) return a >> n end,"
    .. " function(a, b) return a & b end")
  xor, shift, both = compiled()
end

local crc_table = {}
for byte = 0, 255 do
  local value = byte
  for _ = 1, 8 do
    value = both(value, 1) == 1 and xor(shift(value, 1), 0xEDB88320) or shift(value, 1)
  end
  crc_table[byte] = value
end

-- CRC-32 (IEEE) over the packet with the checksum itself taken for zero.
local function checksum(tvb, length)
  local bytes = tvb:range(0, length):bytes()
  local crc = 0xFFFFFFFF
  for index = 0, length - 1 do
    local byte = bytes:get_index(index)
    if index >= CHECKSUM_AT and index < HEADER_LEN then byte = 0 end
    crc = xor(shift(crc, 8), crc_table[both(xor(crc, byte), 0xFF)])
  end
  return xor(crc, 0xFFFFFFFF)
end

-- `0:0000.0000.0002`, as Pilot writes addresses.
local function address(range)
  local network, node = range:range(0, 2):uint(), range:range(2, 4):uint()
  return string.format("%d:%04X.%04X.%04X", network, network, math.floor(node / 65536), node % 65536)
end

-- `1001 (data exchange)`.
local function service(port)
  return ports[port] and string.format("%d (%s)", port, ports[port]) or tostring(port)
end

local function dissect_meta(tvb, tree)
  local meta = tree:add(pilot, tvb:range(0, META_LEN), "How it went")
  meta:add(f.meta_version, tvb:range(0, 1))
  meta:add(f.direction, tvb:range(1, 1))
  meta:add(f.carrier, tvb:range(2, 1))
  meta:add(f.encrypted, tvb:range(3, 1))
  local family = tvb:range(4, 1):uint()
  meta:add(f.family, tvb:range(4, 1))
  if family == 4 then
    meta:add(f.endpoint4, tvb:range(8, 4))
  elseif family == 6 then
    meta:add(f.endpoint6, tvb:range(8, 16))
  end
  if family ~= 0 then meta:add(f.endpoint_port, tvb:range(6, 2)) end
  local words = { carriers[tvb:range(2, 1):uint()] or "?", directions[tvb:range(1, 1):uint()] or "?" }
  meta:append_text(": " .. table.concat(words, ", "))
end

-- A selective acknowledgement: `SACK`, a count, blocks. Nil if the payload is none.
local function dissect_sack(payload, tree)
  if payload:len() < 13 or payload:range(0, 4):string() ~= "SACK" then return nil end
  local count = payload:range(4, 1):uint()
  if count == 0 or count > 32 or payload:len() ~= 5 + 8 * count then return nil end
  local sack = tree:add(pilot, payload:range(), string.format("Selective acknowledgement, %d block(s)", count))
  sack:add(f.sack_count, payload:range(4, 1))
  local texts = {}
  for index = 0, count - 1 do
    local at = 5 + 8 * index
    local left, right = payload:range(at, 4):uint(), payload:range(at + 4, 4):uint()
    local text = string.format("%d-%d", left, right)
    local block = sack:add(pilot, payload:range(at, 8), "Block " .. text)
    block:add(f.sack_left, payload:range(at, 4))
    block:add(f.sack_right, payload:range(at + 4, 4))
    texts[#texts + 1] = text
  end
  return "SACK " .. table.concat(texts, " ")
end

local option_fields = {
  [1] = { f.max_segment, 2 }, [2] = { f.sack_blocks, 1 }, [4] = { f.window_unit, 2 }, [5] = { f.max_outstanding, 4 },
}

-- Stream options in the payload of SYN and SYN|ACK: `PLTO`, a version, then kind, length, value.
local function dissect_options(payload, tree)
  if payload:len() < 5 or payload:range(0, 4):string() ~= "PLTO" then return nil end
  local list = tree:add(pilot, payload:range(), "Stream options")
  list:add(f.options_version, payload:range(4, 1))
  local at, early = 5, 0
  while at + 2 <= payload:len() do
    local kind, length = payload:range(at, 1):uint(), payload:range(at + 1, 1):uint()
    local left = payload:len() - at - 2
    local option = list:add(pilot, payload:range(at, 2 + math.min(length, left)), options[kind] or "unknown option")
    option:add(f.option_kind, payload:range(at, 1))
    option:add(f.option_length, payload:range(at + 1, 1))
    if length > left then
      option:add_proto_expert_info(truncated)
      break
    end
    local known = option_fields[kind]
    if kind == 3 then
      option:add(f.half_close, payload:range(at, 2), true)
    elseif kind == 6 and length > 0 then
      option:add(f.early_data, payload:range(at + 2, length))
      early = early + length
    elseif known and known[2] == length then
      option:add(known[1], payload:range(at + 2, length))
    elseif length > 0 then
      option:add(f.option_value, payload:range(at + 2, length))
    end
    at = at + 2 + length
  end
  return early > 0 and string.format("%d early", early) or "options"
end

-- Messages about the ways between two nodes, to port 4.
local function dissect_path(payload, tree)
  local kind = payload:range(0, 1):uint()
  local path = tree:add(pilot, payload:range(), "Path message")
  path:add(f.path_type, payload:range(0, 1))
  if (kind == 2 or kind == 3) and payload:len() >= 9 then
    path:add(f.path_token, payload:range(1, 8))
  elseif kind == 1 and payload:len() >= 12 then
    path:add(f.generation, payload:range(1, 8))
    local at = 12
    for _ = 1, payload:range(11, 1):uint() do
      if at + 2 > payload:len() then break end
      local length = payload:range(at + 1, 1):uint()
      if (length ~= 4 and length ~= 16) or at + 4 + length > payload:len() then break end
      local candidate = path:add(f.candidate_kind, payload:range(at, 1))
      candidate:add(length == 4 and f.candidate4 or f.candidate6, payload:range(at + 2, length))
      candidate:add(f.candidate_port, payload:range(at + 2 + length, 2))
      at = at + 4 + length
    end
  end
  return path_messages[kind] or "unknown path message"
end

local function flag_names(flags)
  local names = {}
  for _, flag in ipairs({ { 1, "SYN" }, { 4, "FIN" }, { 8, "RST" }, { 2, "ACK" } }) do
    if both(flags, flag[1]) ~= 0 then names[#names + 1] = flag[2] end
  end
  return table.concat(names, ", ")
end

local function dissect_packet(tvb, pinfo, tree)
  if tvb:len() < HEADER_LEN then
    tree:add_proto_expert_info(truncated)
    pinfo.cols.info = "Ends within the header"
    return
  end
  local version = shift(tvb:range(0, 1):uint(), 4)
  local flags = both(tvb:range(0, 1):uint(), 0x0F)
  local protocol = tvb:range(1, 1):uint()
  local length = tvb:range(2, 2):uint()
  local src, dst = address(tvb:range(4, 6)), address(tvb:range(10, 6))
  local src_port, dst_port = tvb:range(16, 2):uint(), tvb:range(18, 2):uint()
  local seq, ack, window = tvb:range(20, 4):uint(), tvb:range(24, 4):uint(), tvb:range(28, 2):uint()

  local header = tree:add(pilot, tvb:range(0, HEADER_LEN), "Packet")
  header:add(f.version, tvb:range(0, 1))
  if version ~= 1 then header:add_proto_expert_info(unknown) end
  local flag_tree = header:add(f.flags, tvb:range(0, 1))
  if flags ~= 0 then flag_tree:append_text(" (" .. flag_names(flags) .. ")") end
  for _, field in ipairs({ f.syn, f.ack_flag, f.fin, f.rst }) do flag_tree:add(field, tvb:range(0, 1)) end
  header:add(f.protocol, tvb:range(1, 1))
  header:add(f.length, tvb:range(2, 2))
  header:add(f.src, tvb:range(4, 6), src)
  header:add(f.src_network, tvb:range(4, 2))
  header:add(f.src_node, tvb:range(6, 4))
  header:add(f.dst, tvb:range(10, 6), dst)
  header:add(f.dst_network, tvb:range(10, 2))
  header:add(f.dst_node, tvb:range(12, 4))
  for _, place in ipairs({ { f.src_port, 16, src_port }, { f.dst_port, 18, dst_port } }) do
    local item = header:add(place[1], tvb:range(place[2], 2))
    if ports[place[3]] then item:append_text(" (" .. ports[place[3]] .. ")") end
  end
  header:add(f.port, tvb:range(16, 2)):set_hidden()
  header:add(f.port, tvb:range(18, 2)):set_hidden()
  header:add(f.seq, tvb:range(20, 4))
  header:add(f.ack, tvb:range(24, 4))
  header:add(f.window, tvb:range(28, 2))
  header:add(f.checksum, tvb:range(CHECKSUM_AT, 4))
  local marker = ({ f.stream, f.datagram, f.control })[protocol]
  if marker then header:add(marker, tvb:range(1, 1), true):set_generated() end

  pinfo.cols.src = src
  pinfo.cols.dst = dst
  if tvb:len() < HEADER_LEN + length then
    header:add_proto_expert_info(truncated)
    length = tvb:len() - HEADER_LEN
  else
    local is_right = checksum(tvb, HEADER_LEN + length) == tvb:range(CHECKSUM_AT, 4):uint()
    header:add(f.checksum_ok, tvb:range(CHECKSUM_AT, 4), is_right):set_generated()
    if not is_right then header:add_proto_expert_info(wrong_checksum) end
  end

  local payload = length > 0 and tvb:range(HEADER_LEN, length):tvb() or nil
  local text
  local info = string.format("%s → %s", service(src_port), service(dst_port))
  if protocol == 1 then
    local acked = both(flags, 2) ~= 0 and string.format(" Ack=%d", ack) or ""
    info = string.format("%s [%s] Seq=%d%s Win=%d Len=%d", info, flag_names(flags), seq, acked, window, length)
    if payload and both(flags, 1) ~= 0 then text = dissect_options(payload, tree) end
    if payload and flags == 2 then text = dissect_sack(payload, tree) end
  elseif protocol == 3 then
    if both(flags, 2) ~= 0 then
      header:add(f.pong, tvb:range(0, 1), true):set_generated()
      info = string.format("%s Pong Seq=%d Len=%d", info, seq, length)
    elseif not payload then
      header:add(f.keepalive, tvb:range(0, 1), true):set_generated()
      info = "Keepalive"
    elseif dst_port == 0 then
      header:add(f.ping, tvb:range(0, 1), true):set_generated()
      info = string.format("%s Ping Seq=%d Len=%d", info, seq, length)
    elseif dst_port == 4 then
      text = dissect_path(payload, tree)
      info = string.format("%s Len=%d", info, length)
    end
  else
    info = string.format("%s Len=%d", info, length)
  end
  if payload and not text then tree:add(f.payload, payload:range()) end
  pinfo.cols.info = text and (info .. " " .. text) or info
end

function pilot.dissector(tvb, pinfo, root)
  pinfo.cols.protocol = "Pilot"
  local tree = root:add(pilot, tvb())
  if tvb:len() < META_LEN then
    tree:add_proto_expert_info(truncated)
    return
  end
  if tvb:range(0, 1):uint() ~= 1 then
    tree:add(f.meta_version, tvb:range(0, 1)):add_proto_expert_info(unknown)
    return
  end
  dissect_meta(tvb, tree)
  if tvb:len() == META_LEN then
    tree:add_proto_expert_info(truncated)
    return
  end
  local packet = tvb:range(META_LEN):tvb()
  dissect_packet(packet, pinfo, tree)
  local kind = protocols[packet:len() > 1 and packet:range(1, 1):uint() or 0]
  if kind then tree:append_text(", " .. kind) end
end

DissectorTable.get("wtap_encap"):add(wtap.USER0, pilot)

-- A dissector of Wireshark for messages with a length in front of each, and for framelet's acknowledgements.
--
--     tshark -X lua_script:framelet.lua -o framelet.layout:postgres -o framelet.ports:5432 -r capture.pcap
--
-- To have it in Wireshark always, copy it into the folder that Help > About > Folders calls "Personal Lua
-- Plugins". The preferences (Edit > Preferences > Protocols > FRAMELET) say which ports and which layout:
-- the name of a protocol or a list of items, as `framelet layouts` shows them. Without a port, choose
-- Analyze > Decode As.

local framelet = Proto("framelet", "Length-prefixed messages")

-- ---- preferences

framelet.prefs.ports = Pref.range("TCP ports", "4747", "Ports whose connections carry messages", 65535)
framelet.prefs.layout = Pref.string("Layout", "u32be", "The name of a protocol, or items such as h1:u32be+self")
framelet.prefs.max_message = Pref.uint("Longest message", 8388608, "A longer one counts as malformed, in bytes")

-- ---- fields

local fields = framelet.fields
local function field(name, make, title, ...)
  fields[name] = make("framelet." .. name, title, ...)
  return fields[name]
end

local f_fixed = field("fixed", ProtoField.bytes, "Fixed bytes")
local f_header = field("header", ProtoField.bytes, "Header")
local f_length = field("length", ProtoField.uint32, "Length as written")
local f_payload_length = field("payload_length", ProtoField.uint32, "Length of the payload")
local f_payload = field("payload", ProtoField.bytes, "Payload")
local f_lines = field("lines", ProtoField.string, "Header lines")
local f_version = field("hello.version", ProtoField.uint8, "Version")
local f_sender = field("hello.sender", ProtoField.bytes, "Sender")
local f_oldest = field("hello.oldest", ProtoField.uint64, "Oldest message that the client still has")
local f_count = field("ack.count", ProtoField.uint64, "Committed messages")
local f_checksum = field("ack.checksum", ProtoField.uint64, "Checksum of the last committed message", base.HEX)
local f_heartbeat = field("heartbeat", ProtoField.bool, "Heartbeat")
local REFUSALS = {
  [1] = "unknown version", [2] = "replies, not acknowledgements", [3] = "a newer connection of this sender",
  [4] = "messages are missing", [5] = "shutting down", [6] = "the sink failed", [7] = "messages are dropped",
  [8] = "the next message is too long", [9] = "the next message was too slow",
}
local f_code = field("refusal.code", ProtoField.uint8, "Refusal", base.DEC, REFUSALS)
local f_text = field("refusal.text", ProtoField.string, "Text")

local malformed = ProtoExpert.new(
  "framelet.malformed", "Malformed frame", expert.group.MALFORMED, expert.severity.ERROR)
local undecoded = ProtoExpert.new(
  "framelet.undecoded", "After a malformed frame", expert.group.UNDECODED, expert.severity.NOTE)
framelet.experts = { malformed, undecoded }

local tcp_stream = Field.new("tcp.stream")

-- ---- layouts

local PRESETS = {
-- presets: made from src/wire/layout/preset.rs by tests/presets.rs
  ["9p"] = "u32le+self",
  ["adb"] = "hex4",
  ["ads"] = "x0000:u32le",
  ["amqp"] = "h3:u32be:data:xce",
  ["amqp1"] = "u32be+self",
  ["asterix"] = "h1:u16be+all",
  ["bgp"] = "xffffffffffffffffffffffffffffffff:u16be+all",
  ["bitcoin"] = "h16:u32le:h4",
  ["bittorrent"] = "u32be",
  ["bmp"] = "x03:u32be+all",
  ["bsp"] = "lsp",
  ["cassandra"] = "h5:u32be",
  ["dap"] = "lsp",
  ["diameter"] = "x01:u24be+all",
  ["dicom"] = "h2:u32be",
  ["dlt"] = "h2:u16be+all",
  ["dns"] = "u16be",
  ["docker"] = "h4:u32be",
  ["doip"] = "h4:u32be",
  ["dotnet"] = "u32le",
  ["drda"] = "u16be+all:xd0",
  ["enip"] = "h2:u16le:h20",
  ["erlang1"] = "u8",
  ["erlang2"] = "u16be",
  ["erlang4"] = "u32be",
  ["gearman"] = "h8:u32be",
  ["git"] = "hex4+self",
  ["grpc"] = "h1:u32be",
  ["http2"] = "u24be:h6",
  ["iec104"] = "x68:u8",
  ["ike"] = "u16be+self",
  ["ipfix"] = "x000a:u16be+all",
  ["iso8583"] = "u16be",
  ["iso8583-ascii"] = "dec4",
  ["iso8583-bcd"] = "bcd4",
  ["java"] = "u32be",
  ["kafka"] = "u32be",
  ["kerberos"] = "u32be",
  ["ldap"] = "x30:ber",
  ["libp2p"] = "varint",
  ["lsp"] = "lsp",
  ["memcached"] = "h8:u32be:h12",
  ["minecraft"] = "varint",
  ["modbus"] = "h2:x0000:u16be",
  ["mongodb"] = "u32le+self",
  ["mqtt"] = "h1:varint",
  ["mysql"] = "u24le:h1",
  ["nanomsg"] = "u64be",
  ["native-messaging"] = "u32le",
  ["netstring"] = "dec/3a:data:x2c",
  ["noise"] = "u16be",
  ["opcua"] = "h4:u32le+all",
  ["openflow"] = "h2:u16be+all",
  ["openvpn"] = "u16be",
  ["osc"] = "u32be",
  ["pcep"] = "h2:u16be+all",
  ["postgres"] = "h1:u32be+self",
  ["protobuf"] = "varint",
  ["radius"] = "h2:u16be+all",
  ["rcon"] = "u32le",
  ["rdp"] = "x0300:u16be+all",
  ["resp"] = "x24:dec/0d0a:data:x0d0a",
  ["rpki"] = "h4:u32be+all",
  ["rsocket"] = "u24be",
  ["rtp"] = "u16be",
  ["s7"] = "x0300:u16be+all",
  ["smb"] = "x00:u24be",
  ["smpp"] = "u32be+self",
  ["someip"] = "h4:u32be",
  ["soup"] = "u16be",
  ["ssh-agent"] = "u32be",
  ["syslog"] = "dec/20",
  ["tds"] = "h2:u16be+all",
  ["thrift"] = "u32be",
  ["tls"] = "h3:u16be",
  ["tns"] = "u16be+self",
  ["tpkt"] = "x0300:u16be+all",
  ["uwsgi"] = "h1:u16le:h1",
  ["zabbix"] = "x5a425844:h1:u32le:h4",
-- end of presets
}

local BINARY = {
  u8 = 1, u16be = 2, u16le = 2, u24be = 3, u24le = 3, u32be = 4, u32le = 4, u64be = 8, u64le = 8,
}

-- Returns the kind of a length and its width in bytes (none if it differs between messages).
local function length_kind(name)
  if BINARY[name] then return { kind = name:sub(-2) == "le" and "le" or "be", width = BINARY[name] } end
  if name == "varint" or name == "ber" then return { kind = name } end
  local terminator = name:match("^dec/(%x+)$")
  if terminator then return { kind = "until", terminator = ByteArray.new(terminator):raw() } end
  local kind, digits = name:match("^(%a%a%a)(%d+)$")
  if kind == "dec" or kind == "hex" then return { kind = kind, width = tonumber(digits) } end
  if kind == "bcd" then return { kind = kind, width = tonumber(digits) / 2 } end
end

-- Parses the text form of a layout. Returns nil and the item that is wrong if it is none.
local function parse(text)
  text = PRESETS[text] or text
  if text == "lsp" then return { lines = true } end
  local layout = { before = {}, between = {}, trailer = {}, around = 0, trailer_length = 0 }
  local region = layout.before
  for item in text:gmatch("[^:]+") do
    local hex, header = item:match("^x(%x+)$"), item:match("^h(%d+)$")
    if hex or header then
      local bytes = hex and ByteArray.new(hex):raw()
      local length = bytes and #bytes or tonumber(header)
      table.insert(region, { bytes = bytes, length = length })
      layout.around = layout.around + length
      if region == layout.trailer then layout.trailer_length = layout.trailer_length + length end
    elseif item == "data" then
      if not layout.length then return nil, item end
      region = layout.trailer
    else
      local name, counts = item:match("^([^+-]+)([+-]?.*)$")
      layout.length = not layout.length and name and length_kind(name)
      if not layout.length then return nil, item end
      layout.counts = counts
      region = layout.between
    end
  end
  if not layout.length then return nil, text end
  local width, counts = layout.length.width, layout.counts
  if counts == "" then layout.surplus = 0
  elseif counts == "+self" then layout.surplus = width
  elseif counts == "+all" then layout.surplus = width and width + layout.around
  else layout.surplus = tonumber(counts) end
  if not layout.surplus then return nil, counts end
  local alone = layout.around == 0
  -- Only such layouts have a number that no length can be.
  layout.has_hello = alone and (width == 4 or width == 8) and (counts == "" or counts == "+self")
    and (layout.length.kind == "be" or layout.length.kind == "le")
  layout.has_markers = alone and layout.length.kind == "hex" and width == 4 and counts == "+self"
  return layout
end

-- Reads the number of a length. Returns the number and its width, or nil and how many bytes it needs at
-- least, or false and what is wrong.
local function read_length(length, bytes)
  local width = length.width
  if width and #bytes < width then return nil, width end
  local kind = length.kind
  if kind == "be" or kind == "le" then
    local number = 0
    for index = 1, width do
      number = number * 256 + bytes:byte(kind == "be" and index or width + 1 - index)
    end
    return number, width
  elseif kind == "varint" then
    local number = 0
    for index = 1, 5 do
      local byte = bytes:byte(index)
      if not byte then return nil, index end
      number = number + byte % 128 * 128 ^ (index - 1)
      if byte < 128 then return number, index end
    end
    return false, "the varint does not end within 5 bytes"
  elseif kind == "ber" then
    local first = bytes:byte(1)
    if not first then return nil, 1 end
    if first < 128 then return first, 1 end
    if first == 128 or first > 136 then return false, "the BER length is indefinite or too wide" end
    if #bytes < first - 127 then return nil, first - 127 end
    local number = 0
    for index = 2, first - 127 do number = number * 256 + bytes:byte(index) end
    return number, first - 127
  elseif kind == "until" then
    local digits, rest = bytes:match("^(%d*)(.*)$")
    if #digits > 10 then return false, "the length has over 10 digits" end
    local begun = rest:sub(1, #length.terminator)
    if begun ~= length.terminator:sub(1, #begun) or digits == "" and rest ~= "" then
      return false, "the length is not digits and their end"
    end
    if #begun < #length.terminator then return nil, #bytes + 1 end
    return tonumber(digits), #digits + #begun
  end
  local digits = bytes:sub(1, width)
  if kind == "bcd" then digits = digits:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end) end
  local number = digits:match(kind == "hex" and "^%x+$" or "^%d+$")
  if not number then return false, "the length is not digits" end
  return tonumber(number, kind == "hex" and 16 or 10), width
end

-- Compares the fixed bytes of a region, as far as there are bytes. Returns what is wrong, if anything.
local function wrong_bytes(region, bytes, at)
  for _, item in ipairs(region) do
    local found = bytes:sub(at + 1, at + item.length)
    if item.bytes and found ~= item.bytes:sub(1, #found) then
      return ("the bytes at %d of the frame are not those of the layout"):format(at)
    end
    at = at + item.length
  end
end

local function region_length(region)
  local length = 0
  for _, item in ipairs(region) do length = length + item.length end
  return length
end

-- Decodes the header lines of LSP.
local function decode_lines(bytes)
  local head, payload
  local last, finish = bytes:find("\r?\n\r?\n")
  if last then head = bytes:sub(1, last - 1) end
  if not last then
    if #bytes > 4096 then return false, "the header lines do not end within 4096 bytes" end
    return nil
  end
  for line in (head .. "\n"):gmatch("([^\r\n]*)\r?\n") do
    local name, value = line:match("^([^:]+):%s*(.-)%s*$")
    if not name then return false, "a header line has no name" end
    if name:lower() == "content-length" then payload = tonumber(value:match("^%d+$") or "") end
  end
  if not payload then return false, "the header lines have no Content-Length" end
  return { prefix = finish, payload = payload, trailer = 0, head = head }
end

-- Decodes the prefix of the frame that begins with these bytes. Returns a table, or nil and how many bytes
-- a prefix needs at least (or nil), or false and what is wrong.
local function decode(layout, bytes)
  if layout.lines then return decode_lines(bytes) end
  local before = region_length(layout.before)
  local wrong = wrong_bytes(layout.before, bytes, 0)
  if wrong then return false, wrong end
  local number, width = read_length(layout.length, bytes:sub(before + 1))
  if number == false then return false, width end
  if not number then return nil, before + width end
  wrong = wrong_bytes(layout.between, bytes, before + width)
  if wrong then return false, wrong end
  local frame = {
    number = number, at = before, width = width, trailer = layout.trailer_length,
    prefix = before + width + region_length(layout.between), payload = number - layout.surplus,
  }
  if layout.has_hello and bytes:sub(1, width) == ("\255"):rep(width) then
    -- The frame of the hello follows.
    local body, need = decode(layout, bytes:sub(width + 1))
    if not body then return body, need and width + need end
    if body.payload ~= 25 then return false, "all ones are not followed by a hello" end
    return { prefix = width + body.prefix, payload = 25, trailer = 0, hello = true, number = body.number,
      at = width + body.at, width = body.width }
  end
  if layout.has_markers and number <= 2 then frame.payload, frame.marker = 0, true end
  if frame.payload < 0 then return false, ("the length %d does not count itself"):format(number) end
  return frame
end

-- ---- what is known about a connection

local layout, layout_error
-- For each TCP stream, the port of the client that asked for acknowledgements; and for each of its
-- directions, the packet with the first malformed frame.
local clients, broken = {}, {}

-- ---- the tree

local function add_region(tree, region, tvb, at)
  for _, item in ipairs(region) do
    if tvb:len() >= at + item.length then tree:add(item.bytes and f_fixed or f_header, tvb(at, item.length)) end
    at = at + item.length
  end
end

local function add_hello(tree, payload)
  tree:add(f_version, payload(0, 1))
  tree:add(f_sender, payload(1, 16))
  tree:add(f_oldest, payload(17, 8))
  return ("Hello, oldest message %s"):format(payload(17, 8):uint64())
end

-- Returns what the answer of a server is; nil if it is none.
local function add_answer(tree, payload)
  if not payload then
    tree:add(f_heartbeat, true):set_generated()
    return "Heartbeat"
  end
  if payload:len() < 8 then return nil end
  tree:add(f_count, payload(0, 8))
  local count = tostring(payload(0, 8):uint64())
  if payload:len() == 8 then return ("%s committed"):format(count) end
  local code = payload(8, 1):uint()
  if code == 0 and payload:len() == 17 then
    tree:add(f_checksum, payload(9, 8))
    return ("%s committed"):format(count)
  end
  tree:add(f_code, payload(8, 1))
  if payload:len() > 9 then tree:add(f_text, payload(9), payload(9):string(ENC_UTF_8)) end
  return ("Refusal: %s"):format(REFUSALS[code] or code)
end

local function add_frame(tree, tvb, frame, is_answer)
  local length = frame.prefix + frame.payload + frame.trailer
  local sub = tree:add(framelet, tvb(0, length))
  if frame.head then
    sub:add(f_lines, tvb(0, frame.prefix), frame.head)
  elseif frame.marker then
    sub:add(f_header, tvb(0, frame.prefix))
  else
    if not frame.hello then add_region(sub, layout.before, tvb, 0) end
    sub:add(f_length, tvb(frame.at, frame.width), frame.number)
    if not frame.hello then add_region(sub, layout.between, tvb, frame.at + frame.width) end
  end
  sub:add(f_payload_length, tvb(0, frame.prefix), frame.payload):set_generated()
  local payload = frame.payload > 0 and tvb(frame.prefix, frame.payload) or nil
  local what
  if frame.hello then
    what = add_hello(sub, payload)
  elseif is_answer then
    what = add_answer(sub, payload)
  end
  if payload and not what then sub:add(f_payload, payload) end
  if frame.trailer > 0 then add_region(sub, layout.trailer, tvb, frame.prefix + frame.payload) end
  what = what or ("Message of %d byte%s"):format(frame.payload, frame.payload == 1 and "" or "s")
  sub:append_text(", " .. what)
  return what
end

-- ---- Wireshark's side

function framelet.init()
  clients, broken = {}, {}
  layout, layout_error = parse(framelet.prefs.layout)
end

local table_of_ports = DissectorTable.get("tcp.port")
local known_ports = framelet.prefs.ports

function framelet.prefs_changed()
  layout, layout_error = parse(framelet.prefs.layout)
  if framelet.prefs.ports ~= known_ports then
    table_of_ports:remove(known_ports, framelet)
    known_ports = framelet.prefs.ports
    table_of_ports:add(known_ports, framelet)
  end
end

function framelet.dissector(tvb, pinfo, tree)
  pinfo.cols.protocol = "framelet"
  if not layout then
    tree:add(framelet, tvb()):add_proto_expert_info(malformed, ("no such layout: %s"):format(layout_error))
    return tvb:len()
  end
  local stream = tcp_stream().value
  local direction = ("%d from %d"):format(stream, pinfo.src_port)
  if broken[direction] and broken[direction] < pinfo.number then
    tree:add(framelet, tvb()):add_proto_expert_info(undecoded)
    return tvb:len()
  end
  local offset, told = 0, {}
  while offset < tvb:len() do
    local rest = tvb(offset):tvb()
    -- A prefix has at most 4096 bytes.
    local bytes = rest:raw(0, math.min(rest:len(), 4200))
    local frame, why = decode(layout, bytes)
    if frame and frame.payload > framelet.prefs.max_message then
      frame, why = false, ("the length %d is over the limit of %d"):format(frame.payload, framelet.prefs.max_message)
    end
    local length = frame and frame.prefix + frame.payload + frame.trailer
    if frame and rest:len() >= length then
      local wrong = wrong_bytes(layout.trailer or {}, rest:raw(frame.prefix + frame.payload, frame.trailer), 0)
      if wrong then frame, why = false, wrong end
    end
    if frame == false then
      broken[direction] = broken[direction] or pinfo.number
      tree:add(framelet, rest()):add_proto_expert_info(malformed, why)
      table.insert(told, "Malformed: " .. why)
      break
    end
    if not frame or rest:len() < length then
      pinfo.desegment_offset = offset
      pinfo.desegment_len = frame and length - rest:len()
        or why and why > #bytes and why - #bytes or DESEGMENT_ONE_MORE_SEGMENT
      break
    end
    if frame.hello then clients[stream] = pinfo.src_port end
    local is_answer = clients[stream] and clients[stream] ~= pinfo.src_port
    table.insert(told, add_frame(tree, rest, frame, is_answer))
    offset = offset + length
  end
  if #told > 0 then pinfo.cols.info = table.concat(told, "; ") end
  return tvb:len()
end

table_of_ports:add(known_ports, framelet)

require 'webrick'

server = WEBrick::HTTPServer.new(Port: ENV.fetch('PORT').to_i, AccessLog: [])
server.mount_proc('/') { |_, answer| answer.body = "#{6 * 7} #{Dir.children('.').sort.join(',')}\n" }
trap('TERM') { server.shutdown }
server.start

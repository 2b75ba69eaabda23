const http = require('http')
const ms = require('ms')
const { bold } = require('kleur')
http.createServer((_, answer) => answer.end(`${ms('2 days')} ${process.env.NODE_ENV} ${typeof bold}\n`)).listen(process.env.PORT)

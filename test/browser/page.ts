import { answerTest } from '../support/browser-calls.ts'
import { crashRounds } from './crash.ts'
import { methods } from './methods.ts'

answerTest({ ...methods, crashRounds })
